"""Text that models are asked to foretell: what merging must not spoil, though no objective measures it.

It is plain text or the right answers to a task. Where the user names neither it is the chain-of-thought examples of
MMLU (Chung et al. 2022), English prose about 57 subjects that is part of lm-eval's installed package.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, assert_never

import lm_eval
from lm_eval.api.instance import Instance

from evomerge.errors import SpecError
from evomerge.items import TEXT, TEXT_LOSS, TextItems
from evomerge.score.bank import TaskBank, build_requests
from evomerge.score.encoding import Encoder
from evomerge.score.golds import Gold, golds_of
from evomerge.score.prepared import Passes
from evomerge.score.responses import Responder
from evomerge.score.rows import Request
from evomerge.trial import Draw, Marks

STOCK = Path(lm_eval.__file__).parent / "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
STOCK_NAME = "MMLU's chains of thought"
TOKENS = 64
"""Of a piece, at most; the first is given, the others are foretold."""
CHARACTERS = 6 * TOKENS
"""Of the text that a piece is cut from."""
MOST, FEWEST = 128, 16
"""Pieces of a text that is learned to be kept."""
REPORTED = 32
"""Pieces that drift is reported on."""
UNKNOWN = 0.05
"""Share of a text that a tokenizer may have no tokens for."""

Guarded: TypeAlias = Path | TaskBank
"""What a user wants to be kept: a text in a file, or a task."""


class Prose:
    """Pieces of a text, and how well the live model, as it is now, foretells them."""

    def __init__(self, items: TextItems, requests: dict[str, Request], responder: Responder) -> None:
        self.items = items
        self._requests = requests
        self._responder = responder
        self._passes: dict[tuple[str, ...], Passes] = {}

    def requests(self, draw: Draw) -> list[Request]:
        """What a draw's pieces ask."""
        ids = self.items.pool(draw.pool)
        return [self._requests[ids[place]] for place in (draw.places or {}).get(TEXT, ())]

    def marks(self, draw: Draw) -> Marks:
        """The loss of each drawn piece, in nats a token.

        Raises:
            ScoreFailure: one is not finite.
        """
        requests = self.requests(draw)
        key = (draw.pool, *map(str, (draw.places or {})[TEXT]))
        if key not in self._passes:
            self._passes = {key: Passes(self._responder, requests)}
        likelihoods, _ = self._passes[key].run()
        losses = (-found / len(one.continuation) for found, one in zip(likelihoods, requests, strict=True))
        return {TEXT: {TEXT_LOSS: tuple(losses)}}


def open_prose(guarded: Guarded | None, responder: Responder) -> Prose | None:
    """What a user wants to be kept, or else prose that lm-eval brings; None if the tokenizer does not cover that.

    Raises:
        SpecError: the file cannot be read, has too little text, or the tokenizer does not cover it; or the task has
            too few documents, or names no right answers.
    """
    match guarded:
        case None:
            return _stock(responder)
        case Path():
            return _of_file(guarded, responder)
        case TaskBank():
            return _of_task(guarded, responder)
        case _:
            assert_never(guarded)


def _stock(responder: Responder) -> Prose | None:
    texts = json.loads(STOCK.read_text()) if STOCK.is_file() else {}
    found = _cut("".join(texts[name] for name in sorted(texts)), REPORTED, responder.encoder)
    ids = tuple(found)
    return Prose(TextItems(source=STOCK_NAME, confirm=ids), found, responder) if ids else None


def _of_file(path: Path, responder: Responder) -> Prose:
    found = _cut(_read(path), MOST, responder.encoder)
    if len(found) < FEWEST:
        raise SpecError(
            f"guard.text: {path} gives {len(found)} pieces of {TOKENS} tokens that the tokenizer has; give {FEWEST} at"
            f" least, which is text of some {FEWEST * CHARACTERS:,} characters"
        )
    ids = tuple(found)
    # All parts come from all over the text.
    return Prose(_shared_out(path.name, ids[::4], (*ids[1::4], *ids[2::4], *ids[3::4])), found, responder)


def _of_task(bank: TaskBank, responder: Responder) -> Prose:
    """Right answers, each behind its question."""
    requests = build_requests(bank, responder.lm)
    golds = golds_of(bank, requests, responder.encoder)
    if not golds:
        raise SpecError(f"guard.task: {bank.name!r} names no right answers to be foretold; give guard.text, a file")
    confirm, search = (
        {
            _digest(one): one
            for one in (_answer(golds[key], requests[key], responder.encoder) for key in pool.ids[:most])
        }
        for pool, most in ((bank.table.confirm, REPORTED), (bank.table.search, MOST - REPORTED))
    )
    if min(3 * len(confirm), len(search)) < FEWEST * 3 // 4:
        raise SpecError(f"guard.task: {bank.name!r} has too few documents; give one with {FEWEST} at least")
    items = _shared_out(f"the right answers of {bank.name}", tuple(confirm), tuple(search))
    return Prose(items, confirm | search, responder)


def _answer(gold: Gold, requests: Sequence[Instance], encoder: Encoder) -> Request:
    """The first right answer of a document, as its task asks about it."""
    if gold.reference is not None:
        return gold.reference
    return encoder.encode(requests[gold.right[0] if gold.right else 0]).requests[0]


def _shared_out(source: str, confirm: tuple[str, ...], search: tuple[str, ...]) -> TextItems:
    """Pieces to report on; of the others the first third is what learning is judged by."""
    return TextItems(source=source, confirm=confirm, held=search[: -(-len(search) // 3)], search=search)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpecError(f"guard.text: {path} cannot be read ({reason}); name a text file in UTF-8") from None


def _cut(text: str, most: int, encoder: Encoder) -> dict[str, Request]:
    """Pieces from all over a text, by digests of their tokens; none if the tokenizer has no tokens for it."""
    count = min(most, len(text) // CHARACTERS)
    parts = [text[len(text) * i // count :][:CHARACTERS] for i in range(count)]
    size = min(TOKENS, encoder.lm.max_length - 2)
    found: dict[str, Request] = {}
    for part in parts:
        tokens = _tokens(part.partition(" ")[2] or part, encoder)
        if len(tokens) >= size:
            begin, piece = _beginning(encoder), tokens[:size]
            found[_digest(piece)] = Request((*begin, piece[0]), piece[1:])
    return found


def _digest(tokens: object) -> str:
    return hashlib.sha256(repr(tokens).encode()).hexdigest()[:16]


def _tokens(part: str, encoder: Encoder) -> tuple[int, ...]:
    """A text's tokens; none if the tokenizer does not cover it."""
    tokens: list[int] = encoder.lm.tok_encode(part, add_special_tokens=False)
    if not tokens or max(tokens) >= encoder.vocabulary:
        return ()
    unknown = tokens.count(encoder.lm.tokenizer.unk_token_id) / len(tokens)
    kept = len(_dense(encoder.lm.tokenizer.decode(tokens))) / max(1, len(_dense(part)))
    return tuple(tokens) if unknown <= UNKNOWN and kept >= 1 - UNKNOWN else ()


def _beginning(encoder: Encoder) -> Sequence[int]:
    """What the tokenizer puts before a text."""
    whole, plain = encoder.lm.tok_encode("a"), encoder.lm.tok_encode("a", add_special_tokens=False)
    return tuple(whole[: len(whole) - len(plain)])


def _dense(text: str) -> str:
    return "".join(text.split())
