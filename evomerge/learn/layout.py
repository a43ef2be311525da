"""Coefficients of many tensors as one vector, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.adam import Floats
from evomerge.recipe import Coefficients, Grain


@dataclass(frozen=True)
class Block:
    """One tensor's coefficients: `sources` of them for each of `size` columns or rows, or for the whole of it."""

    name: str
    sources: int
    size: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return self.sources * self.size


@dataclass(frozen=True)
class Layout:
    """The order of coefficients in a vector.

    With `ties` (coefficients,) several of them are one number: which one of the vector each of them is.
    """

    grain: Grain
    blocks: Sequence[Block]
    ties: NDArray[np.int64] | None = None

    @cached_property
    def coefficients(self) -> int:
        """How many coefficients all tensors have."""
        return sum(block.count for block in self.blocks)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.coefficients if self.ties is None else int(self.ties.max()) + 1

    @property
    def width(self) -> float:
        """How many numbers a source has in a tensor, on average."""
        return self.coefficients / sum(block.sources for block in self.blocks)

    def expanded(self, vector: Floats) -> Coefficients:
        """The coefficients that a vector (size,) stands for."""
        flat = vector if self.ties is None else vector[self.ties]
        arrays, start = {}, 0
        for block in self.blocks:
            arrays[block.name] = flat[start : start + block.count].reshape(block.sources, block.size)
            start += block.count
        return Coefficients(self.grain, arrays)

    def tied(self) -> dict[str, tuple[int, ...]]:
        """For each tensor which of the vector's numbers its sources' weights are; of a layout with ties."""
        assert self.ties is not None, "each coefficient is a number of its own"
        ends = np.cumsum([block.count for block in self.blocks])
        pairs = zip(self.blocks, np.split(self.ties, ends[:-1]), strict=True)
        return {block.name: tuple(map(int, numbers)) for block, numbers in pairs}

    def pulled(self, slopes: Mapping[str, Floats]) -> NDArray[np.float64]:
        """Slopes by the vector's numbers (size,), of slopes by coefficients; a tensor left out has none."""
        parts = [
            np.asarray(slopes[block.name], dtype=np.float64).ravel() if block.name in slopes else np.zeros(block.count)
            for block in self.blocks
        ]
        flat = np.concatenate(parts)
        return flat if self.ties is None else np.bincount(self.ties, flat, self.size).astype(np.float64)

    def gathered(self, weights: Mapping[str, Sequence[float]]) -> Floats:
        """The vector (size,) in which every tensor's sources have these weights; of numbers that are one, the mean."""
        flat = np.concatenate([np.repeat(np.asarray(weights[b.name], dtype=np.float64), b.size) for b in self.blocks])
        if self.ties is not None:
            flat = np.bincount(self.ties, weights=flat, minlength=self.size) / np.bincount(self.ties)
        return flat.astype(np.float32)
