"""Whether two models can be merged: one shape, one tokenizer, however each of them is written."""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from evomerge.checkpoint.anatomy import Anatomy
from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.read import understood
from evomerge.errors import SpecError

TOKENIZER = "tokenizer.json"
SLOW_TOKENIZER = (
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "tiktoken.model",
)


def same_shapes(anatomy: Anatomy, checkpoint: Checkpoint, disk: Mapping[str, str]) -> None:
    """See that every tensor has the shape that the class gives it.

    Raises:
        SpecError: one has another.
    """
    for name, shape in anatomy.shapes.items():
        found = checkpoint.shape(disk[name])
        if found != shape:
            raise SpecError(
                f"{checkpoint.at()}: {disk[name]} has shape {list(found)}, expected {list(shape)};"
                " only models of one shape can be merged"
            )


def same_tokenizer(first: Checkpoint, other: Checkpoint) -> None:
    """See that both turn text into the same tokens; where both have a tokenizer.json, that alone decides.

    Raises:
        SpecError: they do not, or one lacks a file.
    """
    both = all((checkpoint.path / TOKENIZER).is_file() for checkpoint in (first, other))
    for name in (TOKENIZER,) if both else (TOKENIZER, *SLOW_TOKENIZER):
        mine, theirs = first.path / name, other.path / name
        if mine.is_file() != theirs.is_file():
            lacking = other if mine.is_file() else first
            raise SpecError(f"{lacking.at()} has no {name}, another parent has; copy the tokenizer of the base into it")
        if mine.is_file() and first.read(name) != other.read(name):
            difference = "its content" if name != TOKENIZER else _difference(first, other)
            if difference:
                raise SpecError(
                    f"{other.at(name)} differs from {first.label}'s in {difference};"
                    " only models with one tokenizer can be merged"
                )


def _difference(first: Checkpoint, other: Checkpoint) -> str | None:
    """What differs between two tokenizer.json files in what they make of a text; None if nothing does."""
    words = [_vocabulary(checkpoint) for checkpoint in (first, other)]
    odd = sorted(words[0].items() ^ words[1].items(), key=lambda entry: (entry[1], entry[0]))
    if odd:
        word, place = odd[0]
        return f"its vocabulary ({len(words[1])} entries, not {len(words[0])}; first difference: {word!r}, id {place})"
    left, right = _tokenizer(first), _tokenizer(other)
    for key in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if _effective(key, left) != _effective(key, right):
            return f"its {key}"
    return None


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """A tokenizer.json as the library itself writes it: every default there, merges as pairs."""
    with understood(checkpoint.at(TOKENIZER)):
        plain: dict[str, Any] = json.loads(Tokenizer.from_file(str(checkpoint.path / TOKENIZER)).to_str())
        return plain


def _vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """The words of a tokenizer.json with their ids, as it is written: the library takes memory for the largest id."""
    with understood(checkpoint.at(TOKENIZER)):
        plain = checkpoint.read_json(TOKENIZER)
        vocabulary = plain.get("model", {}).get("vocab", {})
        listed = vocabulary if isinstance(vocabulary, dict) else {entry[0]: i for i, entry in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in plain.get("added_tokens", [])}
        return {str(word): int(place) for word, place in (listed | added).items()}


def _effective(key: str, plain: Mapping[str, Any]) -> Any:
    """One part of a tokenizer without what changes no token."""
    part = plain.get(key)
    if key == "model" and isinstance(part, dict):
        # Words may stand here or among the added tokens, and their ids were compared.
        part = {name: value for name, value in part.items() if name != "vocab" or not isinstance(value, dict)}
    if key == "post_processor" and isinstance(part, dict):
        # ByteLevel as a post-processor moves offsets only.
        steps = part["processors"] if part["type"] == "Sequence" else [part]
        part = [step for step in steps if step["type"] != "ByteLevel"]
    return _without_defaults(part)


def _without_defaults(part: Any) -> Any:
    if isinstance(part, dict):
        idle = {"trim_offsets", "dropout"}
        kept = {key: _without_defaults(value) for key, value in part.items() if key not in idle}
        return {key: value for key, value in kept.items() if value is not None and value is not False and value != ""}
    if isinstance(part, list) and not (part and isinstance(part[0], str | float)):
        return [_without_defaults(value) for value in part]
    return part
