"""Writing folders so that they are there whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file

from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.side import CONFIG, INDEX, SINGLE, copy_side_files
from evomerge.errors import SpecError
from evomerge.files import sync
from evomerge.recipe import Dtype

SUMS = "SHA256SUMS"
SHARD_BYTES = 5 * 10**9


@contextmanager
def whole_folder(out: Path, *, force: bool = False, keep: Iterable[Path] = ()) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when it does not.

    Raises:
        SpecError: `out` may not be written, see `refuse_existing`.
    """
    refuse_existing(out, force=force, keep=keep)
    out = Path(os.path.normpath(out.absolute()))
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.parent / f".{out.name}.{uuid4().hex[:8]}"
    fresh.mkdir()
    try:
        yield fresh
        for path in (*fresh.rglob("*"), fresh):
            sync(path)
        aside = out.parent / f".{out.name}.{uuid4().hex[:8]}.old"
        if out.exists():
            out.rename(aside)
        fresh.rename(out)
        sync(out.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def refuse_existing(out: Path, *, force: bool = False, keep: Iterable[Path] = ()) -> None:
    """Stop before anything is overwritten: only a missing or an empty folder is written to.

    With `force` a folder that evomerge wrote before is replaced, unless it is, holds or lies in one of `keep`.

    Raises:
        SpecError: `out` exists, and `force` is not given or does not reach so far.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if not force:
        raise SpecError(f"{out} exists already; choose another --out, or give --force to replace it")
    here = out.resolve()
    for other in (path.resolve() for path in keep):
        if here == other or here in other.parents or other in here.parents:
            how = "is" if here == other else "holds" if here in other.parents else "lies in"
            raise SpecError(f"{out} {how} {other}, which is needed; --force does not replace it, choose another --out")
    strange = _not_ours(out)
    if strange:
        raise SpecError(f"{out} {strange}; --force replaces only what evomerge wrote, choose another --out")


def write_sums(folder: Path) -> None:
    """Checksums of every file, in the format of `sha256sum -c`; the mark of a folder that evomerge wrote."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            name = path.relative_to(folder).as_posix()
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    (folder / SUMS).write_text("".join(lines))


def _not_ours(out: Path) -> str | None:
    """Why a folder is not one that evomerge wrote, and nothing else in it; None if it is."""
    if out.is_symlink() or not out.is_dir():
        return "is not a folder"
    if not (out / SUMS).is_file():
        return f"has no {SUMS}"
    listed = {line.partition("  ")[2] for line in (out / SUMS).read_text(errors="replace").splitlines()}
    inside = {path.relative_to(out).as_posix(): path for path in out.rglob("*")}
    folders = {name.rpartition("/")[0] for name in listed if "/" in name}
    others = sorted(n for n, path in inside.items() if n not in ({*folders} if path.is_dir() else {SUMS, *listed}))
    return f"holds {others[0]}" if others else None


def write_model(
    folder: Path,
    template: Checkpoint,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], torch.Tensor],
) -> None:
    """Write a model: shards, and what lies in the template's folder beside its weights.

    `config` was written before, see `write_config`; `shapes` are those of the tensors by their names on disk. `tensor`
    makes each when its turn comes, so no more than a shard is in memory.
    """
    copy_side_files(template.path, folder)
    width = 4 if config[_dtype_key(config)] == "float32" else 2
    shards = _shards(shapes, width)
    count = len(shards)
    files = [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for file, shard in zip(files, shards, strict=True):
        save_file({name: tensor(name).contiguous() for name in shard}, folder / file, metadata={"format": "pt"})
    if count > 1:
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        total = sum(torch.Size(shape).numel() for shape in shapes.values()) * width
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_config(folder: Path, config: Mapping[str, Any], dtype: Dtype) -> dict[str, Any]:
    """Write a config.json with this dtype; returns what is in it."""
    plain = {**config, _dtype_key(config): dtype}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2) + "\n")
    return plain


def _dtype_key(config: Mapping[str, Any]) -> str:
    return "torch_dtype" if "torch_dtype" in config else "dtype"


def _shards(shapes: Mapping[str, tuple[int, ...]], width: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name in sorted(shapes):
        size = torch.Size(shapes[name]).numel() * width
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
