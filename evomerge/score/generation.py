"""Batched greedy decoding with a cache that lives no longer than one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.score.failure import refuse_nonfinite

LOOK_BACK = 2
"""Tokens more than a stop string has, among which it is looked for: a model may spell it in others."""


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt, how many may follow it, and the strings that end the answer."""

    tokens: tuple[int, ...]
    most: int
    stops: tuple[str, ...]


@dataclass
class Answer:
    """Tokens that a model chose one after another, and for each the logit it was chosen by."""

    tokens: list[int]
    logits: list[float]


class GreedyDecoder:
    """Continues prompts token by token; rows that are done leave the batch.

    An answer ends where lm-eval ends it: at an end token of the model's generation config, or once a stop string
    is among the last tokens of the answer, special tokens written out.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ends = _token_ids(model.generation_config.eos_token_id)
        self._closers: dict[tuple[str, ...], set[int] | None] = {}
        self._reach: dict[str, int] = {}

    def run(self, prompts: Sequence[Prompt], budget: int) -> list[str]:
        """The text after each prompt, up to an end token, a stop string or the limit; stops are not cut off.

        Special tokens end answers but are not part of their text. `budget` is the most tokens, padding and answers
        included, that are in memory together.

        Raises:
            ScoreFailure: the model's logits are not finite.
        """
        order = sorted(range(len(prompts)), key=lambda i: (prompts[i].most, prompts[i].stops, -len(prompts[i].tokens)))
        texts = [""] * len(prompts)
        while order:
            first = prompts[order[0]]
            rows = max(1, budget // (len(first.tokens) + first.most))
            group = [i for i in order[:rows] if (prompts[i].most, prompts[i].stops) == (first.most, first.stops)]
            order = order[len(group) :]
            for i, answer in zip(group, self.decode([prompts[i] for i in group]), strict=True):
                texts[i] = self._tokenizer.decode(answer.tokens, skip_special_tokens=True)
        return texts

    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers to prompts that agree in all but their tokens, as one batch.

        Raises:
            ScoreFailure: the model's logits are not finite.
        """
        answers = [Answer([], []) for _ in prompts]
        alive = list(range(len(prompts)))
        tokens, mask = self._left_padded(prompts)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = None
        for _ in range(prompts[0].most):
            out = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            largest, fresh = out.logits[:, -1].max(-1)
            refuse_nonfinite(largest, "logits")
            taken = list(zip(fresh.tolist(), largest.tolist(), strict=True))
            going = self._going_on([answers[place] for place in alive], taken, prompts[0].stops)
            if not going:
                break
            if len(going) < len(alive):
                keep = torch.tensor(going, device=fresh.device)
                cache.batch_select_indices(keep)
                fresh, mask, positions = fresh[keep], mask[keep], positions[keep]
                alive = [alive[row] for row in going]
            tokens = fresh[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return answers

    def _going_on(
        self, answers: Sequence[Answer], taken: Sequence[tuple[int, float]], stops: tuple[str, ...]
    ) -> list[int]:
        """Add to each answer the token and logit that it took; places of those that have not come to an end."""
        for answer, (token, logit) in zip(answers, taken, strict=True):
            answer.tokens.append(token)
            answer.logits.append(logit)
        return [place for place, answer in enumerate(answers) if not self._done(answer.tokens, stops)]

    def _left_padded(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        length = max(len(prompt.tokens) for prompt in prompts)
        tokens = torch.zeros(len(prompts), length, dtype=torch.long)
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            tokens[i, length - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
            mask[i, length - len(prompt.tokens) :] = 1
        return tokens.to(self._model.device), mask.to(self._model.device)

    def _done(self, answer: list[int], stops: tuple[str, ...]) -> bool:
        if answer[-1] in self._ends:
            return True
        closers = self._closing_tokens(stops)
        if closers is not None and answer[-1] not in closers:
            return False
        return any(stop in self._tokenizer.decode(answer[-self._reaches(stop) :]) for stop in stops)

    def _reaches(self, stop: str) -> int:
        if stop not in self._reach:
            self._reach[stop] = len(self._tokenizer.encode(stop, add_special_tokens=False)) + LOOK_BACK
        return self._reach[stop]

    def _closing_tokens(self, stops: tuple[str, ...]) -> set[int] | None:
        """Tokens that can complete a stop string: those whose text has its last character. None: any token.

        Their text is what they add to a token before them, as some tokenizers drop a space at the beginning.
        """
        if stops not in self._closers:
            last = {stop[-1:] for stop in stops}
            if not all(character.isascii() and character for character in last):
                self._closers[stops] = None
            else:
                before = self._plain_token(last)
                pieces = self._tokenizer.batch_decode([[*before, i] for i in range(len(self._tokenizer))])
                self._closers[stops] = {i for i, piece in enumerate(pieces) if any(c in piece for c in last)}
        return self._closers[stops]

    def _plain_token(self, absent: set[str]) -> list[int]:
        """A token with a text in which these characters are not, if one is found."""
        for i in range(min(512, len(self._tokenizer)))[::-1]:
            text = self._tokenizer.decode([i])
            if text.isalnum() and not absent & set(text):
                return [i]
        return []


def _token_ids(value: int | list[int] | None) -> set[int]:
    if value is None:
        return set()
    return set(value) if isinstance(value, list) else {value}
