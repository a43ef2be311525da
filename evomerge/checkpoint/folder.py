"""A model folder on disk, read lazily: nothing but headers is loaded until a tensor is asked for."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evomerge.checkpoint.side import ADAPTER, CODE, CONFIG, DISTRIBUTED, GENERATION, INDEX, SINGLE, TOKENIZER_FILES
from evomerge.errors import SpecError

READABLE = "make it readable, or copy it anew"


class Checkpoint:
    """A Hugging Face folder: its config, its tensors by name on disk, its tokenizer files.

    Tensors are views into the memory-mapped files: read-only in spirit, shared between processes.

    Raises:
        SpecError: there is no folder, no config, no safetensors file, or one that cannot be read; or stock loading
            does more than read weights, as with an adapter beside them or with weights that are stored quantised.
    """

    def __init__(self, path: Path, label: str, *, trusted: bool = False) -> None:
        """Code that lies in a folder is run only if it is `trusted`."""
        self.path = path
        self.label = label
        self.trusted = trusted
        self.config = self.read_json(CONFIG)
        self._check_plain()
        self._files = {name: self._open(name) for name in self._weight_files()}
        self._stamps = {file: stamp(file) for file in self.weight_files}
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

    def file_of(self, name: str) -> str:
        """Where to look for a tensor, for a message: the file that it is read from."""
        return next(self.at(file) for file, handle in self._files.items() if handle is self._where[name])

    def files(self) -> tuple[Path, ...]:
        """Every file that makes this model what it is: weights, configs, tokenizer, and code where that is trusted."""
        code = sorted(path.name for path in self.path.glob(f"*{CODE}")) if self.trusted else ()
        others = (CONFIG, GENERATION, *TOKENIZER_FILES, *code)
        return (*self.weight_files, *(self.path / name for name in others if (self.path / name).is_file()))

    @cached_property
    def headers(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype (as safetensors calls it) and shape of every tensor, from the headers."""
        slices = {name: handle.get_slice(name) for name, handle in self._where.items()}
        return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.headers[name][1]

    def dtype(self, name: str) -> str:
        """Dtype of a tensor as safetensors calls it, from the header."""
        return self.headers[name][0]

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor, mapped from the file."""
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor

    def tensor_in(self, file: str, name: str) -> torch.Tensor:
        """A tensor of one weight file, mapped from it; another file may have one of the same name."""
        tensor: torch.Tensor = self._files[file].get_tensor(name)
        return tensor

    def check_unchanged(self) -> None:
        """See that the weights that are mapped are still those on disk; to read what was cut off ends a process.

        Raises:
            SpecError: a file was changed, cut short or taken away.
        """
        for file, then in self._stamps.items():
            if stamp(file) != then:
                raise SpecError(f"{self.at(file.name)} was changed, cut short or removed during the run; restore it")

    def read(self, name: str) -> bytes:
        """A small file of the folder.

        Raises:
            SpecError: it is not there, or cannot be read.
        """
        try:
            if not self.path.is_dir():
                raise SpecError(f"{self.at()} is not a folder; give a Hugging Face model folder")
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise SpecError(f"{self.at()} has no {name}; give a Hugging Face model folder") from None
        except OSError as error:
            raise SpecError(f"{self.at(name)} cannot be read ({error.strerror}); {READABLE}") from None

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            SpecError: it is not there, cannot be read, or holds no JSON object.
        """
        try:
            content = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{self.at(name)} is not valid JSON ({error}); copy it anew") from None
        if not isinstance(content, dict):
            found = json.dumps(content)[:40]
            raise SpecError(f"{self.at(name)} holds {found} where a JSON object belongs; copy it anew")
        return content

    def _check_plain(self) -> None:
        """See that stock loading would read the weights and do no more."""
        for place, part in (("", self.config), *self.config.items()):
            quantised = part.get("quantization_config") if isinstance(part, dict) else None
            if quantised:
                key = f"{place}.quantization_config" if place else "quantization_config"
                method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
                raise SpecError(
                    f"{self.at(CONFIG)}: {key} says that the weights are quantised ({method}), which cannot be merged;"
                    " give the full-precision model"
                )
        other = self.config.get("transformers_weights")
        if other is not None and other != SINGLE:
            raise SpecError(
                f"{self.at(CONFIG)}: transformers_weights names {other!r}, which evomerge does not follow; rename that"
                f" file to {SINGLE}, and take the key out"
            )
        parts = sorted(self.path.glob(DISTRIBUTED))
        if parts:
            raise SpecError(
                f"{self.at(parts[0].name)} is part of a distributed checkpoint, which stock loading takes first; load"
                " it with transformers and save_pretrained elsewhere, or remove it"
            )
        if (self.path / ADAPTER).exists():
            raise SpecError(
                f"{self.at(ADAPTER)}: stock loading applies this adapter to the model beside it; merge it in (peft's"
                " merge_and_unload, then save_pretrained), or move it elsewhere to have the model alone"
            )

    def _weight_files(self) -> list[str]:
        # The order of stock transformers: a single file wins over an index beside it.
        if (self.path / SINGLE).is_file():
            return [SINGLE]
        if (self.path / INDEX).is_file():
            return self._shards()
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in self.path.glob(pattern))
        if pickled:
            raise SpecError(
                f"{self.at(pickled[0])} is a pickle, which can run code when loaded; convert it: load the folder with"
                " transformers and call save_pretrained, which writes safetensors"
            )
        raise SpecError(f"{self.at()} has neither {SINGLE} nor {INDEX}; give a folder with safetensors weights")

    def _shards(self) -> list[str]:
        places = self.read_json(INDEX).get("weight_map")
        if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
            raise SpecError(f"{self.at(INDEX)}: weight_map does not say which file each tensor is in; copy it anew")
        return sorted(set(places.values()))

    def _open(self, name: str) -> Any:
        if (self.path / name).resolve().parent != self.path.resolve() and "/" in name:
            raise SpecError(f"{self.at(INDEX)} points at {name!r}, outside the folder")
        try:
            (self.path / name).open("rb").close()
        except FileNotFoundError:
            raise SpecError(f"{self.at(name)} is missing, though {INDEX} names it; copy the folder anew") from None
        except OSError as error:
            raise SpecError(f"{self.at(name)} cannot be read ({error.strerror}); {READABLE}") from None
        try:
            return safe_open(self.path / name, framework="pt")
        except (SafetensorError, OSError) as error:
            raise SpecError(f"{self.at(name)} is damaged or cut short ({error}); copy it anew") from None


def stamp(file: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
