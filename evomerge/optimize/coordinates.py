"""Genes of all kinds as coordinates of a normal distribution."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.kinds import snapped
from evomerge.space import Gene
from evomerge.values import Genome

FAR = 2
"""Standard deviations between a gene's start and another level of it, where no order says which one to try first."""

Floats = NDArray[np.float64]


class Coordinates:
    """One for each gene; of a categorical gene one for each category, of which the largest counts.

    Categories on one line would have to be passed through in an order that means nothing: with four of them a search
    does no better than a random one.
    """

    def __init__(self, genes: Sequence[Gene]) -> None:
        self.genes = genes
        self.spans: list[slice] = []
        self.real: list[bool] = []
        for gene in genes:
            first = len(self.real)
            self.real += [not gene.discrete] * (_categories(gene) or 1)
            self.spans.append(slice(first, len(self.real)))

    def genome(self, point: Floats) -> Genome:
        """The genome at a point (coordinates,)."""
        values = [_unit(gene, point[span]) for gene, span in zip(self.genes, self.spans, strict=True)]
        return snapped(self.genes, values)

    def start(self, genome: Genome | None, sigma: float) -> list[float]:
        """Coordinates to begin at with this standard deviation; None for the middle of everything.

        What can be on or off and categories begin so near to a change that one in 44 is changed at first, as do the
        switches of layers in Akiba et al. 2024.
        """
        if genome is None:
            return [0.5] * len(self.real)
        units = snapped(self.genes, genome)
        return [x for gene, unit in zip(self.genes, units, strict=True) for x in _start(gene, unit, sigma)]


def _categories(gene: Gene) -> int:
    """How many coordinates of its own a gene's levels need; two share one."""
    return gene.levels + 1 if not gene.ordered and gene.levels is not None and gene.levels > 1 else 0


def _unit(gene: Gene, coordinates: Floats) -> float:
    if _categories(gene) and gene.levels is not None:
        return int(np.argmax(coordinates)) / gene.levels
    return float(coordinates[0])


def _start(gene: Gene, unit: float, sigma: float) -> list[float]:
    if count := _categories(gene):
        away = FAR * sigma / 2**0.5  # Two coordinates differ by sqrt(2) sigma.
        return [0.5 + away if level == gene.level(unit) else 0.5 - away for level in range(count)]
    if gene.discrete and gene.levels == 1:
        return [0.5 + FAR * sigma if unit > 0.5 else 0.5 - FAR * sigma]
    return [unit]
