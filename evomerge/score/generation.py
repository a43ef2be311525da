"""Batched greedy decoding with a cache that lives no longer than one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.score.failure import refuse_nonfinite


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt, how many may follow it, and the strings that end the answer."""

    tokens: tuple[int, ...]
    most: int
    stops: tuple[str, ...]


class GreedyDecoder:
    """Continues prompts token by token; rows that are done leave the batch."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ends = _token_ids(model.generation_config.eos_token_id)
        self._closers: dict[tuple[str, ...], set[int] | None] = {}

    def run(self, prompts: Sequence[Prompt], budget: int) -> list[str]:
        """The text after each prompt, up to an end token, a stop string or the limit; stops are not cut off.

        `budget` is the most tokens, padding and answers included, that are in memory together.

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
            for i, tokens in zip(group, self._decode([prompts[i] for i in group]), strict=True):
                texts[i] = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return texts

    @torch.inference_mode()
    def _decode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
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
            going = []
            for row, token in enumerate(fresh.tolist()):
                answers[alive[row]].append(token)
                if not self._done(answers[alive[row]], prompts[0].stops):
                    going.append(row)
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
        text = self._tokenizer.decode(answer, skip_special_tokens=True)
        return any(stop in text for stop in stops)

    def _closing_tokens(self, stops: tuple[str, ...]) -> set[int] | None:
        """Tokens that can complete a stop string: those whose text has its last character. None: any token."""
        if stops not in self._closers:
            last = {stop[-1] for stop in stops}
            if not all(character.isascii() for character in last):
                self._closers[stops] = None
            else:
                pieces = self._tokenizer.batch_decode([[i] for i in range(len(self._tokenizer))])
                self._closers[stops] = {i for i, piece in enumerate(pieces) if any(c in piece for c in last)}
        return self._closers[stops]


def _token_ids(value: int | list[int] | None) -> set[int]:
    if value is None:
        return set()
    return set(value) if isinstance(value, list) else {value}
