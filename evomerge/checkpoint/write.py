"""Writing a model's files into a folder."""

import errno
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.inspect import finite
from evomerge.checkpoint.side import CONFIG, INDEX, SINGLE, copy_side_files
from evomerge.errors import RunError
from evomerge.recipe import Dtype

SHARD_BYTES = 5 * 10**9


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

    Raises:
        RunError: a tensor holds NaN or infinity.
        OSError: the disk is full.
    """
    copy_side_files(template.path, folder, trusted=template.trusted)
    width = 4 if config[_dtype_key(config)] == "float32" else 2
    shards = _shards(shapes, width)
    count = len(shards)
    files = [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for file, shard in zip(files, shards, strict=True):
        _save({name: _sound(name, tensor(name)) for name in shard}, folder / file)
    if count > 1:
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        total = sum(torch.Size(shape).numel() for shape in shapes.values()) * width
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _sound(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not finite(tensor):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise RunError(
            f"nothing was written: merged in {dtype}, {name} holds NaN or infinity; give smaller weights or scales"
            + (", or dtype: bfloat16 or float32" if dtype == "float16" else "")
        )
    return tensor.contiguous()


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library has the operating system's number only in its text.
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number) if found else str(error), str(path)) from None


def write_config(folder: Path, config: Mapping[str, Any], dtype: Dtype) -> dict[str, Any]:
    """Write a config.json with this dtype; returns what is in it."""
    plain = {**config, _dtype_key(config): dtype}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
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
