"""Where the parents lie while candidates are made from them."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from evomerge.checkpoint import AdapterFolder, Anatomy, Change, ParentFiles
from evomerge.errors import SpecError
from evomerge.materialize.fold import GainError, check_gains
from evomerge.materialize.merger import Merger
from evomerge.materialize.probe import check_scales
from evomerge.materialize.weights import Weights
from evomerge.recipe import Recipe, Source
from evomerge.values import Value

Where = Literal["mapped", "device", "streamed"]


class Placement(Value):
    """Parents mapped from disk, held on the device, or streamed to it layer by layer from host memory."""

    where: Where
    pinned: bool = False
    reason: str


MAPPED = Placement(where="mapped", reason="the page cache holds what is used")
ROOM = 0.15
"""Share of the device's memory that activations and the allocator need."""


@dataclass(frozen=True)
class Needs:
    """Bytes that a search takes: all parents as they are stored or made, the same pinned, and the live model."""

    parents: int
    pinned: int
    live: int

    @classmethod
    def of(cls, files: ParentFiles, width: int) -> "Needs":
        """Read off the files; `width` is that of the live model's dtype."""
        sizes = [
            torch.Size(shape).numel()
            * (4 if files.checkpoints[parent].dtype(account.read[name]) in ("F32", "F64") else 2)
            for parent, account in files.accounts.items()
            if files.adapter(parent) is None
            for name, shape in files.anatomy.shapes.items()
        ]
        adapters = filter(None, map(files.adapter, files.checkpoints))
        sizes += [change.bytes for adapter in adapters for change in adapter.changes.values()]
        sizes += [size for recipe in files.recipes.values() for size in _merged_sizes(files.anatomy, recipe)]
        # Pinned memory is handed out in powers of two.
        return cls(sum(sizes), sum(1 << (size - 1).bit_length() for size in sizes), files.anatomy.parameters * width)


def place_parents(needs: Needs, device: str, memory: tuple[int, int]) -> Placement:
    """Choose by size. `memory` is free bytes (on the device, in the host); on a CPU the page cache does it all."""
    if device == "cpu":
        return MAPPED
    on_device, on_host = memory
    needed = needs.parents + needs.live
    if needed <= on_device * (1 - ROOM):
        return Placement(where="device", reason=f"{_gb(needed)} of {_gb(on_device)} free on the device")
    fits = needs.pinned <= on_host * (1 - ROOM)
    home = "pinned in host memory" if fits else "mapped from disk"
    return Placement(
        where="streamed",
        pinned=fits,
        reason=f"all models need {_gb(needed)}, {_gb(on_device)} are free on the device; parents are {home}",
    )


def _merged_sizes(anatomy: Anatomy, recipe: Recipe) -> list[int]:
    """Bytes of each tensor of the model that a recipe makes."""
    width = 4 if recipe.dtype == "float32" else 2
    names = [*anatomy.outside, *(name for origin in recipe.origins() for name in anatomy.inside[origin])]
    return [torch.Size(anatomy.shapes[name]).numel() * width for name in names]


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


class HeldParents:
    """The parents' tensors, each where its placement says from its first use on.

    Of an adapter its factors are held; what it makes of the base's tensors is made anew whenever it is read.

    A recipe as a parent is the model that it would be exported as: its tensors are made on the CPU, rounded to its
    dtype, and held.
    """

    def __init__(self, files: ParentFiles, placement: Placement, device: torch.device) -> None:
        self._files = files
        self._placement = placement
        self._device = device
        self._held: dict[tuple[str, str], Tensor] = {}
        self._weights: dict[str, Weights] = {}
        self._changes: dict[tuple[str, str], Change] = {}
        self._contents = {name: model.content() for name, model in files.models.items()}
        host = torch.device("cpu")
        source = self if device == host else HeldParents(files, MAPPED, host)
        self._merger = Merger(source.read, self.mask_key, host, product=source.product)

    def read(self, parent: str, layer: int | None, name: str) -> Tensor:
        """The flat tensor that stands where `name` stands, in another layer if one is given, on the device."""
        moved = self._files.anatomy.in_layer(name, layer)
        if (adapter := self._files.adapter(parent)) is not None:
            return self._adapted(parent, adapter, moved)
        if (parent, moved) in self._held:
            return self._held[parent, moved].to(self._device, non_blocking=True)
        merged = parent in self._files.recipes
        if merged and (copied := self._copied(parent, layer, name)) is not None:
            return copied
        tensor = self._merged(parent, layer, name) if merged else self._stored(parent, moved)
        if self._placement.where == "device":
            tensor = self._held[parent, moved] = tensor.to(self._device)
        elif self._placement.pinned:
            tensor = self._held[parent, moved] = tensor.pin_memory()
        elif merged:
            self._held[parent, moved] = tensor
        return tensor.to(self._device, non_blocking=True)

    def mask_key(self, source: Source, name: str, seed: int) -> int:
        """Where an expert's mask begins: a function of the seed, the expert's content and the tensor alone."""
        digest = self._contents[source.parent]
        moved = self._files.anatomy.in_layer(name, source.layer)
        text = f"{seed}/{digest}/{moved}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little", signed=True)

    def _adapted(self, parent: str, adapter: AdapterFolder, name: str) -> Tensor:
        """A tensor (flat) of the model that an adapter makes of its base."""
        if self._is_apart(parent, adapter, name):
            disk = self._files.accounts[parent].read[name]
            return adapter.tensor(disk).reshape(-1).to(self._device)
        base, change = self.read(adapter.over, None, name), self._change(parent, adapter, name)
        return base if change is None else change.over(base.view(self._files.anatomy.shapes[name])).reshape(-1)

    def product(self, source: Source, base: Source, name: str) -> tuple[Tensor, Tensor] | None:
        """The factors (rows, rank), (rank, columns) of what a source adds to a base, on the device.

        None if it is no adapter over this base, or one that does more than adding a product to this tensor.
        """
        adapter, moved = self._files.adapter(source.parent), self._files.anatomy.in_layer(name, source.layer)
        if adapter is None or (adapter.over, source.layer) != (base.parent, base.layer):
            return None
        shape = self._files.anatomy.shapes[moved]
        if len(shape) != 2 or self._is_apart(source.parent, adapter, moved):
            return None
        change = self._change(source.parent, adapter, moved)
        if change is None:
            return torch.empty(shape[0], 0, device=self._device), torch.empty(0, shape[1], device=self._device)
        return change.factors()

    def _is_apart(self, parent: str, adapter: AdapterFolder, name: str) -> bool:
        """Whether an adapter has a tensor of its own for what its base has tied to another."""
        return self._files.accounts[adapter.over].read[name] != self._files.accounts[parent].read[name]

    def _change(self, parent: str, adapter: AdapterFolder, name: str) -> Change | None:
        """What an adapter does to a tensor, on the device."""
        disk = self._files.accounts[parent].read[name]
        if (parent, disk) not in self._changes and disk in adapter.changes:
            self._changes[parent, disk] = adapter.changes[disk].to(self._device)
        return self._changes.get((parent, disk))

    def _stored(self, parent: str, name: str) -> Tensor:
        return self._files.checkpoints[parent].tensor(self._files.accounts[parent].read[name]).view(-1)

    def _copied(self, parent: str, layer: int | None, name: str) -> Tensor | None:
        """What a recipe among the parents copies as it is, where `name` stands in this layer, on the device."""
        weights, place = self._made(parent), self._files.anatomy.places[name].in_layer(layer)
        source = weights.copied(place)
        if source is None:
            return None
        tensor, dtype = self.read(source.parent, source.layer, name), self._files.recipes[parent].dtype
        return tensor if dtype == "float32" or tensor.dtype == getattr(torch, dtype) else None

    def _merged(self, parent: str, layer: int | None, name: str) -> Tensor:
        """A tensor (flat) of the model that a recipe among the parents makes, where `name` stands in this layer."""
        return self._made(parent).tensor(self._files.anatomy.places[name].in_layer(layer)).view(-1)

    def _made(self, parent: str) -> Weights:
        """The weights of the model that a recipe among the parents makes.

        Raises:
            SpecError: the recipe has scales, which this class of models cannot have.
        """
        if parent not in self._weights:
            weights = self._weights[parent] = Weights(self._files.recipes[parent], self._files, self._merger)
            if weights.folded:
                check_scales(self._files.template, self._files.anatomy)
            try:
                check_gains(self._files.recipes[parent])
            except GainError as error:
                raise SpecError(f"{parent}: {error}; merge another") from None
        return self._weights[parent]
