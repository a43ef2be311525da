"""Points near a good one: real genes in a box around it, a few of the discrete ones changed."""

from collections.abc import Collection, Sequence
from typing import assert_never

import numpy as np

from evomerge.optimize.kinds import of_kind
from evomerge.space import Gene, GeneKind
from evomerge.values import Genome

RADIUS = 0.25
"""Half the width, in the unit cube, of the box in which the neighbours of real and integer genes are drawn."""
FLIPS = 2
"""Binary genes that a neighbour has otherwise, on average."""
REDRAWS = 1
"""Categorical genes that are drawn anew, on average."""
TRIES = 20
"""Times that one more gene is changed to find a neighbour that nobody knows."""


class Neighbours:
    """Scrambled Sobol points, read gene by gene as steps away from a centre.

    Where all genes are discrete, `known` points and those given before are not given again.
    """

    def __init__(self, genes: Sequence[Gene], rng: np.random.Generator, known: Collection[Genome] = ()) -> None:
        from scipy.stats import qmc  # Half a second, which whoever only reads a run need not wait.

        self._genes = genes
        self._rng = rng
        self._points = qmc.Sobol(len(genes), scramble=True, rng=self._rng)
        self._chances = {
            gene.kind: min(0.5, _changes(gene.kind) / len(of_kind(genes, gene.kind)))
            for gene in genes
            if not gene.ordered
        }
        self._known = set(known)

    def next_to(self, centre: Genome) -> Genome:
        """A neighbour of `centre`."""
        units = self._points.random(1)[0]
        found = [self._moved(*each) for each in zip(self._genes, centre, units, strict=True)]
        if all(gene.discrete for gene in self._genes):
            self._make_new(found)
        self._known.add(tuple(found))
        return tuple(found)

    def _moved(self, gene: Gene, at: float, unit: float) -> float:
        if not gene.ordered:
            chance = self._chances[gene.kind]
            return _other(gene, at, float(unit) / chance) if unit < chance else gene.snapped(at)
        return gene.snapped(float(np.clip(at + (unit * 2 - 1) * RADIUS, 0, 1)))

    def _make_new(self, found: list[float]) -> None:
        """Change one gene after the other until the point is new."""
        for _ in range(TRIES):
            if tuple(found) not in self._known:
                return
            index = int(self._rng.integers(len(found)))
            found[index] = _other(self._genes[index], found[index], float(self._rng.random()))


def _changes(kind: GeneKind) -> int:
    """Genes of this kind that a neighbour has otherwise, on average, where it is no step to a level beside."""
    match kind:
        case "binary":
            return FLIPS
        case "categorical":
            return REDRAWS
        case "real" | "integer":
            return 0
        case _:
            assert_never(kind)


def _other(gene: Gene, at: float, unit: float) -> float:
    """The level that `unit` in [0, 1) stands for among those which `at` does not."""
    levels = gene.levels or 1
    level = min(int(unit * levels), levels - 1)
    return (level + (level >= gene.level(at))) / levels
