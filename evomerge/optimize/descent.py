"""The way down a surrogate from a point: real genes along their slopes in a box, discrete ones a change at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.losses import Loss
from evomerge.learn.model import Model
from evomerge.space import Gene

STEPS = 40
"""Steps along the slopes, at most."""
CHANGES = 3
"""Discrete genes that a proposal has otherwise than the point it comes from, at most."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Aim:
    """What is to become small: the model's `loss`, with so much of each item (items,)."""

    model: Model
    loss: Loss
    shares: Floats

    def values(self, genomes: Floats) -> Floats:
        """At genomes (genomes, genes)."""
        return self.model.values(genomes, self.loss, self.shares)

    def at(self, genome: Floats) -> float:
        """At one genome (genes,)."""
        return float(self.values(genome[None])[0])

    def slopes(self, genome: Floats) -> tuple[float, Floats]:
        """At one genome, with the slopes by its real genes."""
        return self.model.descent(genome, self.loss, self.shares)


def descended(aim: Aim, genes: Sequence[Gene], start: Floats, radius: float) -> Floats:
    """The lowest point that is found within `radius` of `start`, gene by gene."""
    real = np.array([index for index, gene in enumerate(genes) if not gene.discrete], dtype=np.int64)
    found = _along_slopes(aim, real, start, start, radius)
    if len(real) == len(genes):
        return found
    changed = _changed(aim, genes, found)
    return found if (changed == found).all() else _along_slopes(aim, real, changed, start, radius)


def _along_slopes(aim: Aim, real: NDArray[np.int64], at: Floats, centre: Floats, radius: float) -> Floats:
    """Real genes moved from where they are, within `radius` of a centre."""
    from scipy.optimize import minimize

    if not len(real):
        return at
    full: Callable[[Floats], Floats] = lambda values: _with(at, real, values)  # noqa: E731
    low, high = np.maximum(centre[real] - radius, 0), np.minimum(centre[real] + radius, 1)
    found = minimize(
        lambda values: aim.slopes(full(values)),
        at[real],
        jac=True,
        method="L-BFGS-B",
        bounds=np.column_stack([low, high]),
        options={"maxiter": STEPS},
    )
    return full(np.clip(found.x, 0, 1))


def _with(genome: Floats, real: NDArray[np.int64], values: Floats) -> Floats:
    found = genome.copy()
    found[real] = values
    return found


def _changed(aim: Aim, genes: Sequence[Gene], at: Floats) -> Floats:
    """The best change of one discrete gene after the other, as long as they help."""
    value = aim.at(at)
    for _ in range(CHANGES):
        others = np.array(list(_beside(genes, at)))
        values = aim.values(others)
        best = int(np.argmin(values))
        if values[best] >= value:
            break
        at, value = others[best], float(values[best])
    return at


def _beside(genes: Sequence[Gene], at: Floats) -> Iterator[Floats]:
    """Points with another level of one discrete gene: the levels beside, or all others where they have no order."""
    for index, gene in enumerate(genes):
        if gene.discrete and gene.levels is not None:
            level = gene.level(float(at[index]))
            for other in (level - 1, level + 1) if gene.ordered else range(gene.levels + 1):
                if other != level and 0 <= other <= gene.levels:
                    found = at.copy()
                    found[index] = other / gene.levels
                    yield found
