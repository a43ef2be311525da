"""What moves one tensor of a merged model: its sources' coefficients, and how far each of them does at each place."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias, assert_never

import torch
from torch import Tensor

from evomerge.materialize import kernels
from evomerge.materialize.derivatives import elected, weighted
from evomerge.materialize.merger import Job, Mask, Merger
from evomerge.recipe import DareTies, Grain, Linear, Slerp, TaskArithmetic, Ties

BLOCK = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Elements of a tensor that are worked on at once."""
Derive: TypeAlias = Callable[[Sequence[Tensor], Tensor, int], Iterable[Tensor]]
"""Sources (rows, columns) in fp32, the base first where there is one; their weights; the place where they begin in the
tensor; to derivatives (rows, columns), one a coefficient."""


@dataclass(frozen=True)
class Movement:
    """A tensor seen as (rows, columns), columns being its last axis, and the coefficients that it has now.

    `weights` are (coefficients, rows or 1, columns or 1) in fp32: one a source, or slerp's t. A `single` tensor, of one
    axis or made by slerp, has one number a coefficient in every grain.
    """

    merger: Merger
    job: Job
    rows: int
    columns: int
    weights: Tensor
    single: bool

    @classmethod
    def of(cls, merger: Merger, job: Job, shape: tuple[int, ...]) -> Self:
        """What moves the tensor that a job makes."""
        columns = shape[-1] if shape else 1
        rows = torch.Size(shape).numel() // columns
        weights = _weights(job).to(merger.device)
        return cls(merger, job, rows, columns, weights, single=len(shape) < 2 or job.blend.operator.pair)

    @property
    def key(self) -> tuple[object, ...]:
        """What decides whether it moves the tensor at all."""
        return self.job.name, type(self.job.blend.operator), *((s.parent, s.layer) for s in self.job.blend.everything())

    def is_still(self) -> bool:
        """Whether the coefficients change nothing, since all sources are equal, and the base with them."""
        operator = self.job.blend.operator
        if not (operator.needs_base or operator.pair or operator.normalize):
            return False
        first, *others = self.merger.sources(self.job)
        return all(torch.equal(first, other) for other in others)

    def zeros(self, grain: Grain) -> Tensor:
        """Slopes to begin with, in fp64: (coefficients, 1, columns or rows)."""
        sizes: dict[Grain, int] = {"tensor": 1, "column": self.columns, "row": self.rows}
        return torch.zeros(
            len(self.weights), 1 if self.single else sizes[grain], dtype=torch.float64, device=self.merger.device
        )

    def contracted(self, gradient: Tensor, grain: Grain) -> Tensor:
        """The slopes that a gradient of the tensor gives, in fp64: its products with the derivatives, summed."""
        found = self.zeros(grain)
        grain = "tensor" if self.single else grain
        rows = gradient.reshape(self.rows, self.columns)
        for block, derivatives in self.blocks():
            part = rows[block].float()
            for sums, derivative in zip(found, derivatives, strict=True):
                match grain:
                    case "tensor":
                        sums += torch.dot(derivative.flatten(), part.flatten())
                    case "column":
                        sums += (derivative * part).sum(0)
                    case "row":
                        sums[block] += (derivative * part).sum(1)
                    case _:
                        assert_never(grain)
        return found

    def blocks(self) -> Iterator[tuple[slice, Iterable[Tensor]]]:
        """Derivatives block by block of rows: which rows, and (rows, columns) for each coefficient."""
        sources, derive = self.merger.sources(self.job), _derive(self.merger, self.job)
        step = max(1, BLOCK[self.merger.device.type] // self.columns)
        for start in range(0, self.rows, step):
            block = slice(start, min(start + step, self.rows))
            part = slice(block.start * self.columns, block.stop * self.columns)
            xs = [source[part].view(-1, self.columns).float() for source in sources]
            weights = self.weights[:, block] if self.weights.shape[1] > 1 else self.weights
            yield block, derive(xs, weights, part.start)


def _weights(job: Job) -> Tensor:
    """The coefficients of a tensor: (coefficients, rows or 1, columns or 1)."""
    if job.fine is None:
        return torch.tensor(job.blend.coefficients(), dtype=torch.float32)[:, None, None]
    values = torch.from_numpy(job.fine.values)
    match job.fine.grain:
        case "column":
            return values[:, None, :]
        case "row":
            return values[:, :, None]
        case _:
            assert_never(job.fine.grain)


def _derive(merger: Merger, job: Job) -> Derive:
    """How the tensor changes with its coefficients."""
    operator = job.blend.operator
    match operator:
        case Linear():
            return lambda xs, weights, _: weighted(xs, weights, 1.0, normalize=operator.normalize)
        case Slerp():
            return lambda xs, weights, _: [_along(merger, job, xs, float(weights))]
        case TaskArithmetic():
            return lambda xs, weights, _: weighted(
                [x - xs[0] for x in xs[1:]], weights, operator.scale, normalize=operator.normalize
            )
        case Ties():
            trims = merger.trims(job)
            return lambda xs, weights, _: elected(
                [_trimmed(x - xs[0], trim) for x, trim in zip(xs[1:], trims, strict=True)],
                weights,
                operator.scale,
                normalize=operator.normalize,
            )
        case DareTies():
            masks = merger.masks(job, operator)
            return lambda xs, weights, start: elected(
                [_masked(x - xs[0], mask, start) for x, mask in zip(xs[1:], masks, strict=True)],
                weights,
                operator.scale,
                normalize=operator.normalize,
            )
        case _:
            assert_never(operator)


def _trimmed(delta: Tensor, trim: float) -> Tensor:
    return torch.where(delta.abs() >= trim, delta, 0.0)


def _masked(delta: Tensor, mask: Mask, start: int) -> Tensor:
    """What DARE's mask keeps of a task vector from place `start` on, rescaled."""
    places = torch.arange(start, start + delta.numel(), device=delta.device, dtype=torch.int32)
    kept = kernels.hash24(places, torch.tensor(mask.key, dtype=torch.int32, device=delta.device)) < mask.limit
    return torch.where(kept.view_as(delta), delta, 0.0) * mask.factor


def _along(merger: Merger, job: Job, xs: Sequence[Tensor], t: float) -> Tensor:
    """Where slerp goes from here: (rows, columns)."""
    first, second = merger.turn(job, t)
    return xs[0] * first + xs[1] * second
