"""How merged weights change with the weights of their sources, element by element; masks and signs stay as they are.

All work in fp32 on blocks of one tensor: `values` (sources, rows, columns) are what an operator multiplies by its
`weights`, (sources, rows or 1, columns or 1).
"""

from torch import Tensor, where

from evomerge.recipe import NO_SUM


def weighted(values: Tensor, weights: Tensor, scale: float, *, normalize: bool) -> Tensor:
    """Derivatives of `scale * sum_k w_k v_k`, or of the weighted mean if `normalize`: (sources, rows, columns)."""
    if not normalize:
        return values * scale
    total = weights.sum(0)
    divided = total.abs() >= NO_SUM
    divisor = where(divided, total, 1.0)
    mean = where(divided, (weights * values).sum(0) / divisor, 0.0)
    return (values - mean) * (scale / divisor)


def elected(values: Tensor, weights: Tensor, scale: float, *, normalize: bool) -> Tensor:
    """Derivatives where only those sources count that have the sign of the mass (Yadav et al. 2023).

    (sources, rows, columns). A source of weight zero counts where it would with a small positive one: there its
    derivative is one-sided, and not zero for ever.
    """
    mass = (weights * values).sum(0)
    towards = where(mass >= 0, 1.0, -1.0) * where(weights < 0, -1.0, 1.0)
    agrees = values * towards > 0
    kept = where(agrees, values, 0.0)
    if not normalize:
        return kept * scale
    divisor = where(agrees, weights, 0.0).sum(0)
    divisor = where(divisor == 0, 1.0, divisor)
    mean = (weights * kept).sum(0) / divisor
    return where(agrees, kept - mean, 0.0) * (scale / divisor)
