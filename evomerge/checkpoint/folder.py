"""A model folder on disk, read lazily: nothing but headers is loaded until a tensor is asked for."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evomerge.errors import SpecError
from evomerge.recipe import Dtype

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
)
GENERATION = "generation_config.json"
DTYPES: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Checkpoint:
    """A Hugging Face folder: its config, its tensors by name on disk, its tokenizer files.

    Tensors are views into the memory-mapped files: read-only in spirit, shared between processes.

    Raises:
        SpecError: there is no folder, no config, no safetensors file, or one that cannot be read.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        self.label = label
        self.config = self._read_json(CONFIG)
        if "quantization_config" in self.config:
            raise SpecError(f"{self.at()} is quantised and cannot be merged; give the full-precision model")
        self._files = {name: self._open(name) for name in self._weight_files()}
        self._stamps = {file: _stamp(file) for file in self.weight_files}
        self._where = {key: handle for handle in self._files.values() for key in handle.keys()}  # noqa: SIM118

    def at(self, name: str = "") -> str:
        """Where to look, for a message: the name in the run file, then the path."""
        return f"{self.label}: {self.path / name if name else self.path}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, as on disk."""
        return tuple(self._where)

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files, in order of name."""
        return tuple(self.path / name for name in sorted(self._files))

    def names_in(self, file: str) -> tuple[str, ...]:
        """Names of the tensors in one weight file."""
        return tuple(self._files[file].keys())

    def files(self) -> tuple[Path, ...]:
        """Every file that makes this model what it is: weights, configs, tokenizer."""
        others = (CONFIG, GENERATION, *TOKENIZER_FILES)
        return (*self.weight_files, *(self.path / name for name in others if (self.path / name).is_file()))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return tuple(self._where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Dtype of a tensor as safetensors calls it, from the header."""
        return str(self._where[name].get_slice(name).get_dtype())

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, mapped from the file."""
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor

    def check_unchanged(self) -> None:
        """See that the weights that are mapped are still those on disk; to read what was cut off ends a process.

        Raises:
            SpecError: a file was changed, cut short or taken away.
        """
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise SpecError(f"{self.at(file.name)} was changed, cut short or removed during the run; restore it")

    @cached_property
    def main_dtype(self) -> Dtype:
        """The dtype that most weights are stored in.

        Raises:
            SpecError: it is none of fp32, fp16, bf16.
        """
        sizes: dict[str, int] = {}
        for name in self.names:
            sizes[self.dtype(name)] = sizes.get(self.dtype(name), 0) + torch.Size(self.shape(name)).numel()
        dtype = max(sizes, key=lambda key: sizes[key])
        if dtype not in DTYPES:
            raise SpecError(f"{self.at()}: weights are stored as {dtype}; evomerge reads F32, F16 and BF16")
        return DTYPES[dtype]

    def _read_json(self, name: str) -> dict[str, Any]:
        if not self.path.is_dir():
            raise SpecError(f"{self.at()} is not a folder; give a Hugging Face model folder")
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            raise SpecError(f"{self.at()} has no {name}; give a Hugging Face model folder") from None
        except ValueError as error:
            raise SpecError(f"{self.at(name)} is not valid JSON ({error}); copy it anew") from None
        return content

    def _weight_files(self) -> list[str]:
        if (self.path / INDEX).is_file():
            return sorted(set(self._read_json(INDEX)["weight_map"].values()))
        if (self.path / SINGLE).is_file():
            return [SINGLE]
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in self.path.glob(pattern))
        if pickled:
            raise SpecError(
                f"{self.at(pickled[0])} is a pickle, which can run code when loaded; convert it: load the folder with"
                " transformers and call save_pretrained, which writes safetensors"
            )
        raise SpecError(f"{self.at()} has neither {SINGLE} nor {INDEX}; give a folder with safetensors weights")

    def _open(self, name: str) -> Any:
        if (self.path / name).resolve().parent != self.path.resolve() and "/" in name:
            raise SpecError(f"{self.at(INDEX)} points at {name!r}, outside the folder")
        try:
            return safe_open(self.path / name, framework="pt")
        except FileNotFoundError:
            raise SpecError(f"{self.at(name)} is missing, though {INDEX} names it; copy the folder anew") from None
        except (SafetensorError, OSError) as error:
            raise SpecError(f"{self.at(name)} is damaged or cut short ({error}); copy it anew") from None


def _stamp(file: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
