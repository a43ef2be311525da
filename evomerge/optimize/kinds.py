"""Genes of several kinds in one genome: snapped to their levels, drawn evenly, and what several genomes share."""

import statistics
from collections.abc import Iterable, Sequence

from evomerge.space import Gene
from evomerge.values import Genome


def snapped(genes: Sequence[Gene], point: Iterable[float]) -> Genome:
    """The genome at `point` of the unit cube: discrete genes at their levels, so that equal recipes are equal."""
    return tuple(gene.snapped(float(unit)) for gene, unit in zip(genes, point, strict=True))


def drawn(genes: Sequence[Gene], units: Iterable[float]) -> Genome:
    """The genome that uniform numbers from [0, 1) stand for, with every level of a discrete gene equally likely.

    Rounding would give the outer levels half of what the others get.
    """
    return tuple(_drawn(gene, float(unit)) for gene, unit in zip(genes, units, strict=True))


def middle(genes: Sequence[Gene], genomes: Sequence[Genome]) -> Genome:
    """What genomes, best first, have in common.

    The mean of a real gene, the median of an integer, the most frequent level of the others, the better genome's
    where two are as frequent.
    """
    return tuple(_middle(gene, column) for gene, column in zip(genes, zip(*genomes, strict=True), strict=True))


def of_kind(genes: Sequence[Gene], *kinds: str) -> list[int]:
    """Where genes of these kinds stand."""
    return [index for index, gene in enumerate(genes) if gene.kind in kinds]


def _drawn(gene: Gene, unit: float) -> float:
    if not gene.discrete or gene.levels is None:
        return unit
    return min(int(unit * (gene.levels + 1)), gene.levels) / gene.levels


def _middle(gene: Gene, column: Sequence[float]) -> float:
    if not gene.discrete:
        return sum(column) / len(column)
    units = [gene.snapped(unit) for unit in column]
    return statistics.median_low(units) if gene.ordered else statistics.mode(units)
