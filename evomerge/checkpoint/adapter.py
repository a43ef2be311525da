"""A PEFT adapter beside its base, read as the model that merging it in would give; held as its factors.

LoRA (Hu et al. 2022), rsLoRA (Kalajdzievski 2023) and DoRA (Liu et al. 2024, eq. 5), with what else an adapter may
bring: biases, and modules that were trained in full.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from evomerge.checkpoint.folder import Checkpoint, stamp
from evomerge.checkpoint.side import ADAPTER, INDEX, SINGLE
from evomerge.errors import SpecError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
ADAPTER_PREFIX = "base_model.model."
"""What PEFT puts before the names of modules."""
ELSEWHERE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin an adapter that change the base as well, by the first letters of `init_lora_weights`."""
BEYOND = (
    "layer_replication", "megatron_config", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
    "use_qalora", "use_bdlora", "target_parameters", "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Settings of LoRA with which merging an adapter in is more than adding a product, or no matter of weights alone."""
PARTS = {
    "lora_A.weight": "down",
    "lora_embedding_A": "down",
    "lora_B.weight": "up",
    "lora_embedding_B": "up",
    "lora_B.bias": "plus",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "base_layer.weight": "instead",
    "base_layer.bias": "instead",
}
"""How the file calls the parts of a change, behind the module's name."""


@dataclass(frozen=True)
class Change:
    """What an adapter makes of one tensor of its base, by its parts.

    `down` (rank, inputs) and `up` (outputs, rank) have a product that is added, `scale` times; it is `turned` where
    weights lie (inputs, outputs). With a `magnitude` (outputs,) the weights of every output are then made that long.
    Before all this the tensor may be another one `instead`; `plus` is what is added to a bias, `scale` times.
    """

    parts: Mapping[str, Tensor]
    scale: float = 1.0
    turned: bool = False

    def over(self, base: Tensor | None) -> Tensor:
        """The changed tensor, in fp32; `base` may be None if there is another one instead."""
        parts = {name: part.float() for name, part in self.parts.items()}
        found = parts["instead"] if base is None or "instead" in parts else base.float()
        if "up" in parts:
            product = (parts["up"] @ parts["down"]) * self.scale
            found = found + (product.T if self.turned else product)
        if "magnitude" in parts:
            # Each output's weights are a row, or turned a column.
            lengths = torch.linalg.vector_norm(found, dim=0 if self.turned else 1, keepdim=True)
            found = found * (parts["magnitude"].view(lengths.shape) / lengths)
        return found + parts["plus"] * self.scale if "plus" in parts else found

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(rows, rank) and (rank, columns) in fp32, whose product is all that is added; None if there is more to it."""
        if self.parts.keys() != {"up", "down"}:
            return None
        up, down = self.parts["up"].float() * self.scale, self.parts["down"].float()
        return (down.T, up.T) if self.turned else (up, down)

    def to(self, device: torch.device) -> "Change":
        """The same there."""
        return replace(self, parts={name: part.to(device) for name, part in self.parts.items()})

    @property
    def rank(self) -> int:
        """How many products of a column and a row are added."""
        return len(self.parts["down"]) if "down" in self.parts else 0

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in self.parts.values())


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model that it is beside."""
    return (folder / ADAPTER).is_file() and not any((folder / name).exists() for name in (SINGLE, INDEX))


class AdapterFolder(Checkpoint):
    """An adapter over a `base`, which says what it calls the tensors of the model (`places`, by names in memory).

    It has the base's tensors, under their names there, changed where the adapter changes them; nothing is made before
    it is asked for. Config and tokenizer are the base's. `over` is what the base is called among the models.

    Raises:
        SpecError: a file is missing or cannot be read; the adapter is of another kind, or for another model.
    """

    def __init__(self, path: Path, label: str, base: Checkpoint, over: str, places: Mapping[str, str]) -> None:
        self.path = path
        self.label = label
        self.over = over
        self.trusted = base.trusted
        self.config = base.config
        self._base = base
        self._settings = self.read_json(ADAPTER)
        self._check_method()
        if not (path / ADAPTER_WEIGHTS).is_file():
            way = "copy the adapter anew"
            if (path / PICKLED).is_file():
                way = (
                    f"{PICKLED} is a pickle, which can run code when loaded: load it with peft and call save_pretrained"
                )
            raise SpecError(f"{self.at()} has no {ADAPTER_WEIGHTS}; {way}")
        self._files = {ADAPTER_WEIGHTS: self._open(ADAPTER_WEIGHTS)}
        self._stamps = {file: stamp(file) for file in self.weight_files}
        self._where = dict.fromkeys(self._files[ADAPTER_WEIGHTS].keys(), self._files[ADAPTER_WEIGHTS])
        self.changes = self._read_changes(places)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, as the base has them on disk; those that only the adapter has come last."""
        return (*self._base.names, *(name for name in self.changes if name not in self._base.headers))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors in the adapter's own file."""
        return tuple(self._where)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of its products, each once, in order."""
        return tuple(sorted({change.rank for change in self.changes.values()} - {0}))

    @property
    def has_magnitudes(self) -> bool:
        """Whether any change is more than a product that is added: of a DoRA, or of modules that were trained whole."""
        return any({"magnitude", "instead", "plus"} & change.parts.keys() for change in self.changes.values())

    @property
    def parameters(self) -> int:
        """Numbers in the adapter's own file."""
        return sum(math.prod(self._where[name].get_slice(name).get_shape()) for name in self._where)

    def file_of(self, name: str) -> str:
        """Where to look for a tensor, for a message: the file that it is read from."""
        return self.at(ADAPTER_WEIGHTS) if name in self.changes else self._base.file_of(name)

    def files(self) -> tuple[Path, ...]:
        """Both files that make the adapter what it is."""
        return (*self.weight_files, self.path / ADAPTER)

    @cached_property
    def headers(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype (as safetensors calls it) and shape of every tensor; changed ones are fp32."""
        base = self._base.headers
        changed = {
            name: ("F32", tuple(change.parts["instead"].shape) if "instead" in change.parts else base[name][1])
            for name, change in self.changes.items()
        }
        return {**base, **changed}

    def tensor(self, name: str) -> Tensor:
        """A tensor: mapped from the base's file, or made of it."""
        base = self._base.tensor(name) if name in self._base.headers else None
        if name in self.changes:
            return self.changes[name].over(base)
        assert base is not None, "what is not changed is the base's"
        return base

    def _check_method(self) -> None:
        settings, method = self._settings, self._settings.get("peft_type")
        if method != "LORA":
            raise SpecError(
                f"{self.at(ADAPTER)}: peft_type is {method!r}, which is not merged here; give LoRA, rsLoRA or DoRA, or"
                " merge it in (peft's merge_and_unload, then save_pretrained), and name that folder"
            )
        begun = str(settings.get("init_lora_weights", True)).lower()
        beyond = next((key for key in BEYOND if settings.get(key)), None)
        if begun.startswith(ELSEWHERE):
            beyond = "init_lora_weights"
        if beyond is not None:
            raise SpecError(
                f"{self.at(ADAPTER)}: {beyond} is {settings[beyond]!r}, with which the adapter is more than products"
                " added to this base; merge it in (peft's merge_and_unload, then save_pretrained), and name that folder"
            )

    def _read_changes(self, places: Mapping[str, str]) -> dict[str, Change]:
        """What is changed, by names on the base's disk."""
        parts: dict[str, dict[str, Tensor]] = {}
        embeddings = set()
        for key in self._where:
            name, part = self._understood(key)
            parts.setdefault(name, {})[part] = self._where[key].get_tensor(key)
            if "lora_embedding" in key:
                embeddings.add(name)
        found = {}
        for name, its in parts.items():
            disk = places.get(name, name)
            if disk not in self._base.headers and "instead" not in its:
                raise SpecError(
                    f"{self.at(ADAPTER_WEIGHTS)} changes {name}, which {self._base.at()} has no tensor for; name the"
                    " base that the adapter was trained on"
                )
            found[disk] = self._change(name, disk, its, embeds=name in embeddings)
        return found

    def _understood(self, key: str) -> tuple[str, str]:
        """The tensor in memory that one of the adapter's is about, and which part of its change it is."""
        name = key.removeprefix(ADAPTER_PREFIX)
        for ending, part in PARTS.items():
            if name.endswith(f".{ending}"):
                return f"{name.removesuffix(f'.{ending}')}.{'bias' if ending.endswith('.bias') else 'weight'}", part
        if name == key or "lora_" in name:
            raise SpecError(
                f"{self.at(ADAPTER_WEIGHTS)}: {key} is no part of a LoRA that evomerge knows; merge it in (peft's"
                " merge_and_unload, then save_pretrained), and name that folder"
            )
        return name, "instead"

    def _change(self, name: str, disk: str, parts: Mapping[str, Tensor], *, embeds: bool) -> Change:
        rank, alpha = (self._setting(key, name.rpartition(".")[0]) for key in ("rank", "alpha"))
        if "magnitude" in parts and parts["magnitude"].numel() not in self._base.shape(disk):
            raise SpecError(f"{self.at(ADAPTER_WEIGHTS)}: {name} has other outputs than its magnitudes; copy it anew")
        if "plus" in parts and tuple(parts["plus"].shape) != self._base.shape(disk):
            raise SpecError(f"{self.at(ADAPTER_WEIGHTS)}: {name} has another shape than what is added to it")
        change = Change(parts, scale=alpha / (math.sqrt(rank) if self._settings.get("use_rslora") else rank))
        if not {"down", "up"} & parts.keys():
            return change
        shape = tuple(parts["instead"].shape) if "instead" in parts else self._base.shape(disk)
        down, up = (parts.get(part, torch.empty(0)) for part in ("down", "up"))
        if down.ndim != 2 or up.ndim != 2 or len(down) != rank or up.shape[1] != rank:
            raise SpecError(
                f"{self.at(ADAPTER_WEIGHTS)}: {name} has no two factors of rank {rank:g}; copy the adapter anew"
            )
        straight, turned = (len(up), down.shape[1]), (down.shape[1], len(up))
        if shape not in (straight, turned):
            raise SpecError(
                f"{self.at(ADAPTER_WEIGHTS)} changes {name} as if it had shape {list(straight)}, in"
                f" {self._base.label} it has {list(shape)}; name the base that the adapter was trained on"
            )
        return replace(change, turned=embeds or shape != straight or (turned == straight and self._lies_turned))

    @property
    def _lies_turned(self) -> bool:
        """Whether the modules of this adapter keep weights (inputs, outputs), as GPT-2's do."""
        return bool(self._settings.get("fan_in_fan_out"))

    def _setting(self, what: str, module: str) -> float:
        """Rank, or alpha, of a module: that of the first pattern that its name ends in, or else the adapter's."""
        patterns = self._settings.get(f"{what}_pattern") or {}
        if not isinstance(patterns, dict):
            raise SpecError(f"{self.at(ADAPTER)}: {what}_pattern is {patterns!r}, no mapping; copy the adapter anew")
        whole = self._settings.get("r" if what == "rank" else "lora_alpha")
        try:
            found = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), whole)
        except re.error as error:
            raise SpecError(f"{self.at(ADAPTER)}: {what}_pattern holds no pattern ({error}); copy it anew") from None
        if not isinstance(found, int | float) or found <= 0:
            raise SpecError(f"{self.at(ADAPTER)}: {what} is {found!r} for {module}; copy the adapter anew")
        return float(found)
