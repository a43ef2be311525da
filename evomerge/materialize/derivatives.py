"""How merged weights change with the weights of their sources, element by element; masks and signs stay as they are.

All work in fp32 on blocks of one tensor: `values` (rows, columns), one a source, are what an operator multiplies by
`weights`, (sources, rows or 1, columns or 1). Derivatives come source by source, so that few are there at once, and may
be the values themselves.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, where

from evomerge.recipe import NO_SUM


def weighted(values: Sequence[Tensor], weights: Tensor, scale: float, *, normalize: bool) -> Iterator[Tensor]:
    """Derivatives of `scale * sum_k w_k v_k`, or of the weighted mean if `normalize`: (rows, columns) each."""
    if not normalize:
        yield from values if scale == 1.0 else (value * scale for value in values)
        return
    total = weights.sum(0)
    divided = total.abs() >= NO_SUM
    divisor = where(divided, total, 1.0)
    mean = where(divided, _sum(values, weights) / divisor, 0.0)
    yield from ((value - mean) * (scale / divisor) for value in values)


def elected(values: Sequence[Tensor], weights: Tensor, scale: float, *, normalize: bool) -> Iterator[Tensor]:
    """Derivatives where only those sources count that have the sign of the mass (Yadav et al. 2023).

    (rows, columns) each. A source of weight zero counts where it would with a small positive one: there its derivative
    is one-sided, and not zero for ever.
    """
    sign = where(_sum(values, weights) >= 0, 1.0, -1.0)
    ways = where(weights < 0, -1.0, 1.0)
    agrees = [value * sign * way > 0 for value, way in zip(values, ways, strict=True)]
    kept = [where(agreed, value, 0.0) for agreed, value in zip(agrees, values, strict=True)]
    if not normalize:
        yield from (value * scale for value in kept)
        return
    divisor = _sum([agreed.float() for agreed in agrees], weights)
    divisor = where(divisor == 0, 1.0, divisor)
    mean = _sum(kept, weights) / divisor
    for agreed, value in zip(agrees, kept, strict=True):
        yield where(agreed, value - mean, 0.0) * (scale / divisor)


def _sum(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total
