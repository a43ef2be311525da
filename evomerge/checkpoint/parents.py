"""The models of a search, opened together and checked against each other before anything runs."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from evomerge.checkpoint.anatomy import Anatomy, anatomy_of, blank_model, disk_names, read_config
from evomerge.checkpoint.folder import GENERATION, TOKENIZER_FILES, Checkpoint
from evomerge.checkpoint.inspect import digest
from evomerge.errors import SpecError
from evomerge.recipe import Folder, Parents

# What may differ between two configs of models that can be merged: it names, or steers training or decoding.
BENIGN = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class ParentFiles:
    """Parents that fit together: their checkpoints, the anatomy they share, and each one's names on disk."""

    parents: Parents
    checkpoints: dict[str, Checkpoint]
    anatomy: Anatomy
    disk: dict[str, dict[str, str]]

    @property
    def template(self) -> Checkpoint:
        """The parent that lends config, tokenizer and tensor names to a merged model."""
        return self.checkpoints[self.parents.template]

    def size(self) -> int:
        """Bytes of one model in the dtype it is merged to."""
        return self.anatomy.parameters * (4 if self.parents.dtype == "float32" else 2)


def open_parents(
    base: str | None,
    experts: Mapping[str, str],
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> ParentFiles:
    """Open base and experts, check that they fit, and address them by content.

    Raises:
        SpecError: one cannot be read, or differs from the first in architecture, shapes or tokenizer.
    """
    sources = {**({"base": base} if base is not None else {}), **experts}
    folders = {name: _locate(source, _label(name)) for name, source in sources.items()}
    checkpoints = {name: Checkpoint(Path(folder.path), _label(name)) for name, folder in folders.items()}
    first = next(iter(checkpoints.values()))
    config = read_config(first)
    model = blank_model(config)
    anatomy = anatomy_of(model)
    for checkpoint in checkpoints.values():
        _same_architecture(first, config, checkpoint)
        _same_tokenizer(first, checkpoint)
    disk = {name: disk_names(model, checkpoint, anatomy) for name, checkpoint in checkpoints.items()}
    for name, checkpoint in checkpoints.items():
        _same_shapes(anatomy, checkpoint, disk[name])
    models = {
        name: folder.model_copy(update={"digest": digest(checkpoints[name], progress)})
        for name, folder in folders.items()
    }
    parents = Parents(
        models=models,
        base="base" if base is not None else None,
        experts=tuple(experts),
        layers=anatomy.layers,
        outer=anatomy.outer,
        dtype=first.main_dtype,
        seed=seed,
    )
    return ParentFiles(parents, checkpoints, anatomy, disk)


def _label(name: str) -> str:
    return "models.base" if name == "base" else f"models.experts.{name}"


def _locate(source: str, label: str) -> Folder:
    """The folder a parent lies in, fetched from the hub if it is a hub id."""
    path = Path(source).expanduser()
    if path.exists() or not HUB_ID.fullmatch(source):
        if not path.exists():
            raise SpecError(f"{label}: {source} does not exist; give a model folder or a hub id like owner/name")
        return Folder(path=str(path.absolute()))
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")
    patterns = ["*.safetensors", "*.safetensors.index.json", "config.json", GENERATION, *TOKENIZER_FILES]
    try:
        found = snapshot_download(repo, revision=revision or None, allow_patterns=patterns)
    except Exception as error:  # noqa: BLE001  The hub library's own errors vary from release to release.
        reason = str(error).strip().split("\n")[0]
        raise SpecError(
            f"{label}: {source} is neither a folder here nor could it be fetched as a hub id ({reason})"
        ) from None
    return Folder(path=found, hub=source)


def _same_architecture(first: Checkpoint, config: PretrainedConfig, other: Checkpoint) -> None:
    if other is first:
        return
    mine, theirs = config.to_dict(), read_config(other).to_dict()
    for key in sorted(mine.keys() | theirs.keys()):
        if key not in BENIGN and mine.get(key) != theirs.get(key):
            raise SpecError(
                f"{other.at('config.json')}: {key} is {theirs.get(key)!r}, in {first.label} it is {mine.get(key)!r};"
                " only models of one architecture can be merged"
            )


def _same_shapes(anatomy: Anatomy, checkpoint: Checkpoint, disk: Mapping[str, str]) -> None:
    for name, shape in anatomy.shapes.items():
        found = checkpoint.shape(disk[name])
        if found != shape:
            raise SpecError(
                f"{checkpoint.at()}: {disk[name]} has shape {list(found)}, expected {list(shape)};"
                " only models of one shape can be merged"
            )


def _same_tokenizer(first: Checkpoint, other: Checkpoint) -> None:
    if other is first:
        return
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"):
        mine, theirs = first.path / name, other.path / name
        if mine.is_file() != theirs.is_file():
            lacking = other if mine.is_file() else first
            raise SpecError(f"{lacking.at()} has no {name}, another parent has; copy the tokenizer of the base into it")
        if mine.is_file() and mine.read_bytes() != theirs.read_bytes():
            difference = _vocabulary_difference(mine, theirs) if name == "tokenizer.json" else "its content"
            if difference:
                raise SpecError(
                    f"{other.at(name)} differs from {first.label}'s in {difference};"
                    " only models with one tokenizer can be merged"
                )


def _vocabulary_difference(mine: Path, theirs: Path) -> str | None:
    """What differs between two tokenizer.json files, truncation and padding aside; None if nothing does."""
    left, right = (json.loads(path.read_text()) for path in (mine, theirs))
    words = [_vocabulary(plain) for plain in (left, right)]
    odd = sorted(words[0].items() ^ words[1].items(), key=lambda entry: (entry[1], entry[0]))
    if odd:
        word, place = odd[0]
        return f"its vocabulary ({len(words[1])} entries, not {len(words[0])}; first difference: {word!r}, id {place})"
    for key in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if left.get(key) != right.get(key):
            return f"its {key}"
    return None


def _vocabulary(plain: dict[str, Any]) -> dict[str, int]:
    vocabulary = plain.get("model", {}).get("vocab", {})
    listed = vocabulary if isinstance(vocabulary, dict) else {entry[0]: i for i, entry in enumerate(vocabulary)}
    return {**listed, **{token["content"]: token["id"] for token in plain.get("added_tokens", [])}}
