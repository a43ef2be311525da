"""The tensors of layers, each made once however many hops and candidates refer to it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from evomerge.checkpoint import Mix
from evomerge.materialize.merger import Job, Merger, single_source


class Key(NamedTuple):
    """What a tensor is: how it is made (`Mix.text`), what stands in its place by name, its dtype, the masks' seed."""

    mix: str
    name: str
    dtype: str
    seed: int


class Wanted(NamedTuple):
    """How to make a tensor: its blend and weights, its shape, the dtype that it is held in."""

    mix: Mix
    shape: tuple[int, ...]
    held: torch.dtype


_Memory: TypeAlias = tuple[tuple[int, ...], torch.dtype]
"""What memory can be written to again for: a shape, and a dtype that it is held in."""


@dataclass(frozen=True)
class _Made:
    tensor: nn.Parameter
    copies: bool
    """Whether it is a parent's, unchanged."""
    own: bool
    """Whether the memory is ours to write to again."""


class LayerTensors:
    """Tensors by what they are.

    Those of the present candidate are all there. Beyond them copies of parents' tensors are kept, the latest used, as
    far as `room` bytes go, until a candidate comes that has none. Memory is written to again and again: a search over
    blends takes that of one model.
    """

    def __init__(self, merger: Merger, room: int, free: Sequence[nn.Parameter] = (), *, borrow: bool = True) -> None:
        """`free` is memory that nobody uses any more; `borrow` says that parents' tensors stay where they are read."""
        self._merger = merger
        self._made: OrderedDict[Key, _Made] = OrderedDict()
        self._free: dict[_Memory, list[nn.Parameter]] = {}
        self._bytes = 0
        self._room = room
        self._borrow = borrow
        for tensor in free:
            self._free.setdefault(_memory(tensor), []).append(tensor)
            self._bytes += tensor.nbytes

    def __getitem__(self, key: Key) -> nn.Parameter:
        """A tensor that was made ready."""
        return self._made[key].tensor

    def ready(self, wanted: Mapping[Key, Wanted]) -> int:
        """Make what is missing of these; returns how many that were."""
        takes_copies = any(single_source(each.mix) is not None for each in wanted.values())
        for key in [key for key in self._made if key not in wanted]:
            if not self._made[key].copies:
                self._release(key)
            elif not takes_copies:
                self._drop(key)
        missing = [key for key in wanted if key not in self._made]
        for key in wanted:
            if key in self._made:
                self._made.move_to_end(key)
        for key in missing:
            self._made[key] = self._new(key, wanted)
        return len(missing)

    def _new(self, key: Key, wanted: Mapping[Key, Wanted]) -> _Made:
        mix, shape, held = wanted[key]
        copies = single_source(mix) is not None
        dtype: torch.dtype = getattr(torch, key.dtype)
        stored = self._merger.stored(mix, key.name, dtype, held) if self._borrow else None
        if stored is not None:
            return _Made(nn.Parameter(stored.view(shape), requires_grad=False), copies, own=False)
        # Until it is whole nobody knows of it: a merge that fails half-way must not pass for the tensor.
        buffer = self._buffer((shape, held), wanted)
        self._merger.write(Job(mix.blend, key.name, buffer.data.view(-1), dtype, key.seed, mix.fine))
        return _Made(buffer, copies, own=True)

    def _buffer(self, memory: _Memory, wanted: Mapping[Key, Wanted]) -> nn.Parameter:
        shape, held = memory
        size = torch.Size(shape).numel() * held.itemsize
        idle = (key for key in list(self._made) if key not in wanted)
        while not self._free.get(memory) and self._bytes + size > self._room and (key := next(idle, None)):
            self._release(key)
        if self._free.get(memory):
            return self._free[memory].pop()
        if self._bytes + size > self._room:
            self._bytes -= sum(tensor.nbytes for tensors in self._free.values() for tensor in tensors)
            self._free.clear()
        self._bytes += size
        empty = torch.empty(shape, dtype=held, device=self._merger.device)
        return nn.Parameter(empty, requires_grad=False)

    def _drop(self, key: Key) -> None:
        """Give memory back to whoever else may need it."""
        made = self._made.pop(key)
        self._bytes -= made.tensor.nbytes if made.own else 0

    def _release(self, key: Key) -> None:
        """Keep memory for another tensor."""
        made = self._made.pop(key)
        if made.own:
            self._free.setdefault(_memory(made.tensor), []).append(made.tensor)


def _memory(tensor: nn.Parameter) -> _Memory:
    return tuple(tensor.shape), tensor.dtype
