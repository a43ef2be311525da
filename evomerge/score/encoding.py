"""Text to tokens as lm-eval's HFLM makes them: split, cut and refused where it splits, cuts and refuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evomerge.errors import SpecError
from evomerge.score.generation import Prompt
from evomerge.score.rows import Request

SHOWN = 60
"""Characters of a text that an error shows."""
CONTEXTS_KEPT = 16
"""Contexts whose tokens are remembered, so that the options of an item cost one reading of its context."""


@dataclass(frozen=True)
class Encoded:
    """What one of lm-eval's requests puts to a model: continuations to be scored, or a prompt to be continued.

    `cut` is how many tokens at the beginning had to go, because the model's window is too small for them.
    """

    requests: tuple[Request, ...] = ()
    prompt: Prompt | None = None
    cut: int = 0

    @property
    def written(self) -> int:
        """Tokens that may be generated."""
        return self.prompt.most if self.prompt is not None else 0


class Encoder:
    """Encodes requests for a model that knows `vocabulary` tokens."""

    def __init__(self, lm: HFLM, vocabulary: int) -> None:
        self.lm = lm
        self.vocabulary = vocabulary
        self._remembered = lru_cache(CONTEXTS_KEPT)(lm.tok_encode)

    def encode(self, instance: Instance) -> Encoded:
        """The tokens of a request.

        Raises:
            SpecError: lm-eval could not put it to this model with this tokenizer either; the reason, without a place.
        """
        if self.lm.prefix_token_id is None:
            raise SpecError("the tokenizer has neither a beginning nor an end token, and lm-eval needs one of them")
        texts = instance.args[:2] if instance.request_type == "loglikelihood" else instance.args[:1]
        odd = [text for text in texts if not isinstance(text, str)]
        if odd:
            raise SpecError(f"a prompt or target is {_shown(str(odd[0]))}, which is no text; mend the task's templates")
        match instance.request_type:
            case "loglikelihood":
                found = self._pair(*instance.args[:2])
            case "loglikelihood_rolling":
                found = self._rolling(instance.args[0])
            case "generate_until":
                found = self._generation(*instance.args[:2])
            case other:
                raise SpecError(f"requests of the kind {other!r} are none that evomerge can put to a model")
        for tokens in _all_tokens(found):
            self._check(tokens)
        return found

    def reference(self, instance: Instance, answer: str) -> Request:
        """The tokens of a right answer to a request that asks for text: up to the first stop string, and that one.

        Raises:
            SpecError: the model's window is too small for it, or the tokenizer has no tokens for it.
        """
        _, stops = self._limits(instance.args[1])
        found = self._pair(instance.args[0], postprocess_generated_text(answer, list(stops), None) + stops[0])
        for tokens in _all_tokens(found):
            self._check(tokens)
        return found.requests[0]

    def _pair(self, context: str, continuation: str) -> Encoded:
        left, right = self._split(context, continuation)
        if not right:
            raise SpecError(f"the tokenizer has no token for the continuation {_shown(continuation)} of its context")
        if not left:
            raise SpecError(f"the tokenizer has no token for the context {_shown(context)}")
        if len(right) > self.lm.max_length:
            raise SpecError(
                f"the continuation {_shown(continuation)} has {len(right)} tokens, more than the model's window of"
                f" {self.lm.max_length}"
            )
        cut = max(0, len(left) + len(right) - self.lm.max_length - 1)
        return Encoded((Request(tuple(left[cut:]), tuple(right)),), cut=cut)

    def _split(self, context: str, continuation: str) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens of a context and its continuation, split where lm-eval splits them."""
        if context:
            return self._encoded_pair(context, continuation)
        right = self.lm.tok_encode(continuation, add_special_tokens=False)
        if not right:
            raise SpecError("neither the context nor the continuation has a token")
        prefix = self.lm.prefix_token_id
        return (right[:1], right[1:]) if right[0] == prefix else ([prefix], right)

    def _encoded_pair(self, context: str, continuation: str) -> tuple[Sequence[int], Sequence[int]]:
        """As lm-eval's `_encode_pair`, with the tokens of the context remembered."""
        bare = context.rstrip()
        left = self._remembered(bare)
        return left, self.lm.tok_encode(bare + context[len(bare) :] + continuation)[len(left) :]

    def _rolling(self, text: str) -> Encoded:
        windows = get_rolling_token_windows(
            token_list=self.lm.tok_encode(text),
            prefix_token=self.lm.prefix_token_id,
            max_seq_len=self.lm.max_length,
            context_len=1,
        )
        pairs = map(make_disjoint_window, windows)
        return Encoded(tuple(Request(tuple(context), tuple(rest)) for context, rest in pairs))

    def _generation(self, text: str, arguments: dict[str, Any]) -> Encoded:
        most, stops = self._limits(arguments)
        room = self.lm.max_length - most
        tokens = self.lm.tok_batch_encode([text], truncation=self.lm.truncation)[0][0].tolist()
        if not tokens:
            raise SpecError("the prompt is empty, and there is nothing to continue")
        cut = max(0, len(tokens) - room)
        return Encoded(prompt=Prompt(tuple(map(int, tokens[cut:])), most, stops), cut=cut)

    def _limits(self, arguments: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
        """How many tokens may be generated, and the strings that end an answer."""
        if self.lm.eot_token_id is None:
            raise SpecError("the tokenizer has no end token, which lm-eval needs for tasks that generate")
        try:
            settings = normalize_gen_kwargs(dict(arguments), self.lm.max_gen_toks)
            stops = tuple(handle_stop_sequences(settings["until"], eos=self._end))
        except (TypeError, ValueError) as error:
            raise SpecError(f"lm-eval cannot read its generation settings ({error}); mend them") from None
        if not all(isinstance(stop, str) for stop in stops):
            raise SpecError(f"until holds {stops[0]!r}, which is no string; give strings")
        most, window = settings["max_gen_toks"], self.lm.max_length
        if not 0 < most < window:
            raise SpecError(
                f"max_gen_toks is {most}, which must be at least 1 and leave room for a prompt in the model's window of"
                f" {window} tokens; give generation: {{max_gen_toks: ...}}"
            )
        return most, stops

    @cached_property
    def _end(self) -> str:
        return str(self.lm.tok_decode(self.lm.eot_token_id, skip_special_tokens=False))

    def _check(self, tokens: Sequence[int]) -> None:
        largest = max(tokens, default=0)
        if largest >= self.vocabulary:
            text = self.lm.tok_decode([largest], skip_special_tokens=False)
            raise SpecError(
                f"{text!r} is token {largest} of the tokenizer, and the model knows {self.vocabulary} tokens; let"
                " models.template name an expert whose tokenizer fits"
            )


def _all_tokens(found: Encoded) -> list[tuple[int, ...]]:
    prompt = [found.prompt.tokens] if found.prompt is not None else []
    return [part for one in found.requests for part in (one.context, one.continuation)] + prompt


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"...{text[-SHOWN:]}")
