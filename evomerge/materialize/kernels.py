"""The arithmetic of merging: each kernel reads its inputs once, works in fp32 and rounds once.

All take flat tensors of one length in the dtype they are stored in: `xs` are the experts, behind the base where
the operator has one. Scalars arrive in `tables` as small tensors, so that a compiled kernel serves every
candidate. Weights come first, (experts,); where they differ by column or row, tensors are (rows, columns) and weights
(experts, 1, columns) or (experts, rows, 1). Eager and compiled arithmetic agree bit for bit on a CPU: the same
operations in the same order, without contraction.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Tables: TypeAlias = tuple[Tensor, ...]
Kernel: TypeAlias = Callable[[Tensor, torch.dtype, Sequence[Tensor], Tables, bool], None]


def linear(out: Tensor, dtype: torch.dtype, xs: Sequence[Tensor], tables: Tables, normalize: bool) -> None:  # noqa: ARG001
    """`sum_i w_i x_i`; one table, the weights (experts,), already normalised."""
    (weights,) = tables
    total = xs[0].float() * weights[0]
    for i in range(1, len(xs)):
        total = total + xs[i].float() * weights[i]
    _round(out, dtype, total)


def task_arithmetic(out: Tensor, dtype: torch.dtype, xs: Sequence[Tensor], tables: Tables, normalize: bool) -> None:  # noqa: ARG001
    """`b + sum_i w_i (x_i - b)` (Ilharco et al. 2022); one table, the weights (experts,), lambda included."""
    (weights,) = tables
    base = xs[0].float()
    total = (xs[1].float() - base) * weights[0]
    for i in range(2, len(xs)):
        total = total + (xs[i].float() - base) * weights[i - 1]
    _round(out, dtype, base + total)


def ties(out: Tensor, dtype: torch.dtype, xs: Sequence[Tensor], tables: Tables, normalize: bool) -> None:
    """TIES with weighted mass (Yadav et al. 2023; mergekit's meaning).

    Three tables: weights and thresholds (experts,); scales, see `_elect`.
    """
    weights, thresholds, scales = tables
    base = xs[0].float()
    contributions = []
    for i, x in enumerate(xs[1:]):
        delta = x.float() - base
        contributions.append(torch.where(delta.abs() >= thresholds[i], delta, 0.0) * weights[i])
    _round(out, dtype, base + _elect(contributions, weights, scales, normalize))


def dare_ties(out: Tensor, dtype: torch.dtype, xs: Sequence[Tensor], tables: Tables, normalize: bool) -> None:
    """DARE's drop and rescale (Yu et al. 2023), then TIES' election.

    Four tables: weights and rescaling, fp32 (experts,); scales, see `_elect`; rows (key, threshold, offset), int32
    (3, experts). An element is kept where the hash of its place, counted from the offset, is below the threshold.
    """
    weights, rescaling, scales, hashing = tables
    base = xs[0].float()
    places = torch.arange(out.numel(), device=out.device, dtype=torch.int32).view(out.shape)
    contributions = []
    for i, x in enumerate(xs[1:]):
        kept = hash24(places + hashing[2, i], hashing[0, i]) < hashing[1, i]
        contributions.append(torch.where(kept, x.float() - base, 0.0) * rescaling[i] * weights[i])
    _round(out, dtype, base + _elect(contributions, weights, scales, normalize))


CHOSEN = 4
"""Up to so many experts the scale is chosen from a table of all subsets; above, it is a division."""


def _elect(contributions: Sequence[Tensor], weights: Tensor, scales: Tensor, normalize: bool) -> Tensor:
    """Lambda times the sum, or weighted mean, of the values that have the sign of the mass; zero counts as positive.

    `scales` is lambda alone; or, if `normalize` and there are `CHOSEN` experts or less of one weight each, lambda over
    the sum of the weights of each subset of experts (bit i: expert i agrees), since a division costs as much as all the
    rest.
    """
    mass = contributions[0]
    for one in contributions[1:]:
        mass = mass + one
    sign = torch.where(mass >= 0, 1.0, -1.0)
    towards = [one * sign for one in contributions]
    total = towards[0].clamp(min=0.0)
    for one in towards[1:]:
        total = total + one.clamp(min=0.0)
    agrees = [one > 0 for one in towards]
    if not normalize:
        return total * sign * scales[0]
    if len(contributions) <= CHOSEN and weights.ndim == 1:
        return total * sign * _choose(agrees, scales)
    divisor = torch.zeros_like(mass)
    for i, agreed in enumerate(agrees):
        divisor = divisor + torch.where(agreed, weights[i], 0.0)
    return total * sign / torch.where(divisor == 0, 1.0, divisor) * scales[0]


def _choose(agrees: Sequence[Tensor], scales: Tensor) -> Tensor:
    """The entry of `scales` whose index has bit i set where `agrees[i]`."""
    options = [scales[i] for i in range(2 ** len(agrees))]
    for agreed in agrees:
        options = [torch.where(agreed, options[i + 1], options[i]) for i in range(0, len(options), 2)]
    return options[0]


def subset_scales(weights: Sequence[float], scale: float, *, normalize: bool) -> list[float]:
    """What `_elect` takes for its `scales`; an empty or cancelling subset is divided by one, as mergekit does."""
    if not normalize or len(weights) > CHOSEN:
        return [scale]
    sums = [sum(w for i, w in enumerate(weights) if subset >> i & 1) for subset in range(2 ** len(weights))]
    return [scale / (total if total != 0 else 1.0) for total in sums]


def _round(out: Tensor, dtype: torch.dtype, value: Tensor) -> None:
    # What is scored is what is exported: the live model may be fp32, its numbers are those of the recipe's dtype.
    out.copy_(value.to(dtype))


def hash24(places: Tensor, key: Tensor) -> Tensor:
    """24 pseudo-random bits for each element index: Murmur3's finaliser of the keyed index.

    int32 in and out; products wrap around, right shifts are made logical by masking.
    """
    h = (places * -1640531527) ^ key
    h = (h ^ ((h >> 16) & 0xFFFF)) * -2048144789
    h = (h ^ ((h >> 13) & 0x7FFFF)) * -1028477387
    return (h ^ ((h >> 16) & 0xFFFF)) & 0xFFFFFF


def keeps(values: Tensor, key: int, limit: int) -> Tensor:
    """Which elements of a whole tensor DARE's mask keeps: those whose place hashes below the limit."""
    places = torch.arange(values.numel(), device=values.device, dtype=torch.int32)
    return hash24(places, torch.tensor(key, dtype=torch.int32, device=values.device)) < limit
