"""The models of a search, opened together and checked against each other before anything runs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.checkpoint.anatomy import Anatomy, anatomy_of, blank_model, disk_names, read_config
from evomerge.checkpoint.fit import same_architecture, same_shapes, same_tokenizer
from evomerge.checkpoint.folder import GENERATION, TOKENIZER_FILES, Checkpoint
from evomerge.checkpoint.inspect import digest
from evomerge.errors import SpecError
from evomerge.recipe import BASE, Folder, Parent, Parents

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


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


def in_run_file(name: str) -> str:
    """Where a run file names a parent."""
    return "models.base" if name == BASE else f"models.experts.{name}"


def open_parents(
    base: str | None,
    experts: Mapping[str, str],
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    template: str | None = None,
    called: Callable[[str], str] = in_run_file,
) -> ParentFiles:
    """Open base and experts, check that they fit, and address them by content.

    `template` names the one that lends config and tokenizer, if not the first; `called` says where the user named a
    parent, for messages.

    Raises:
        SpecError: one cannot be read, or differs from the first in architecture, shapes or tokenizer.
    """
    if BASE in experts:
        raise SpecError(f"models.experts: {BASE!r} is the base's own name; choose another")
    sources = {**({BASE: base} if base is not None else {}), **experts}
    if template is not None and template not in sources:
        raise SpecError(f"models.template: {template!r} is none of the models; write one of {', '.join(sources)}")
    folders = {name: _locate(source, called(name)) for name, source in sources.items()}
    checkpoints = {name: Checkpoint(Path(folder.path), called(name)) for name, folder in folders.items()}
    anatomy, disk = _fitted(list(checkpoints.values()))
    models: dict[str, Parent] = {
        name: folder.model_copy(update={"digest": digest(checkpoints[name], progress)})
        for name, folder in folders.items()
    }
    parents = Parents(
        models=models,
        base=BASE if base is not None else None,
        experts=tuple(experts),
        layers=anatomy.layers,
        outer=anatomy.outer,
        dtype=next(iter(checkpoints.values())).main_dtype,
        seed=seed,
        lender=template,
    )
    return ParentFiles(parents, checkpoints, anatomy, dict(zip(checkpoints, disk, strict=True)))


def _fitted(checkpoints: Sequence[Checkpoint]) -> tuple[Anatomy, list[dict[str, str]]]:
    """What the models share, and each one's names on disk."""
    first, *others = checkpoints
    config = read_config(first)
    model = blank_model(config)
    anatomy = anatomy_of(model)
    for other in others:
        same_architecture(first, config, other)
        same_tokenizer(first, other)
    disk = [disk_names(model, checkpoint, anatomy) for checkpoint in checkpoints]
    for checkpoint, names in zip(checkpoints, disk, strict=True):
        same_shapes(anatomy, checkpoint, names)
    return anatomy, disk


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
            f"{label}: there is no folder {source}, and it could not be fetched as a hub id either ({reason})"
        ) from None
    return Folder(path=found, hub=source)
