"""How NSGA-II varies genes of several kinds in one genome: pymoo's operators where it has them, by kind."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm

from evomerge.optimize.kinds import drawn, of_kind, snapped
from evomerge.space import Gene
from evomerge.values import Genome

Floats = NDArray[np.float64]

OFTEN = 0.9
"""Chance that a pair is crossed, and that a child is mutated: pymoo's, like the next two."""
NARROW_CROSSING, NARROW_MUTATION = 15.0, 20.0
"""Distribution indices of simulated binary crossover and of polynomial mutation (Deb and Agrawal 1995)."""


class Drawing(Sampling):  # type: ignore[misc]  # pymoo has no types
    """First points: reals evenly, every level equally likely."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__()
        self._genes = genes

    def _do(
        self,
        problem: Problem,
        n_samples: int,
        *,
        random_state: np.random.Generator,
        algorithm: object = None,  # noqa: ARG002  pymoo hands it to all of these.
    ) -> Floats:
        return np.array([drawn(self._genes, row) for row in random_state.random((n_samples, problem.n_var))])


class Crossing(Crossover):  # type: ignore[misc]  # pymoo has no types
    """Simulated binary crossover of numbers; segments or single ones of the binary genes; categories one by one.

    Neighbouring binary genes are neighbouring layers, of which a segment may work together. Half of the pairs
    exchange one (two-point crossover), the other half every gene by chance (uniform crossover).
    """

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__(2, 2, prob=OFTEN)
        self._numbers = of_kind(genes, "real", "integer")
        self._binary = of_kind(genes, "binary")
        self._categories = of_kind(genes, "categorical")

    def _do(
        self,
        _problem: Problem,
        X: Floats,
        *,
        random_state: np.random.Generator,
        algorithm: object = None,  # noqa: ARG002
    ) -> Floats:
        """Children (2, pairs, genes) of parents (2, pairs, genes)."""
        children, pairs, count = X.copy(), X.shape[1], len(self._numbers)
        if count:
            each = np.ones((pairs, 1))
            bounds = np.zeros(count), np.ones(count)
            children[:, :, self._numbers] = cross_sbx(
                X[:, :, self._numbers],
                *bounds,
                each * NARROW_CROSSING,
                each / 2,
                each / 2,
                random_state=random_state,
            )
        exchanged = np.zeros(X.shape[1:], dtype=bool)
        exchanged[:, self._binary] = _segments(pairs, len(self._binary), random_state)
        exchanged[:, self._categories] = random_state.random((pairs, len(self._categories))) < 0.5
        children[:, exchanged] = X[::-1, exchanged]
        return children


class Mutating(Mutation):  # type: ignore[misc]  # pymoo has no types
    """Polynomial mutation of numbers, flips of binary genes, another category: of each kind one gene on average."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__(prob=OFTEN)
        self._numbers = of_kind(genes, "real", "integer")
        self._integers = of_kind(genes, "integer")
        self._binary = of_kind(genes, "binary")
        self._categories = of_kind(genes, "categorical")
        self._levels = np.array([gene.levels or 1 for gene in genes])

    def _do(
        self,
        _problem: Problem,
        X: Floats,
        *,
        random_state: np.random.Generator,
        algorithm: object = None,  # noqa: ARG002
    ) -> Floats:
        """Children (children, genes), some genes changed."""
        mutated, many = X.copy(), len(X)
        if count := len(self._numbers):
            index, chances = np.full(many, NARROW_MUTATION), np.full(many, _chance(count))
            bounds = np.zeros(count), np.ones(count)
            mutated[:, self._numbers] = mut_pm(
                X[:, self._numbers], *bounds, index, chances, at_least_once=False, random_state=random_state
            )
        mutated[:, self._integers] = self._stepped(X[:, self._integers], mutated[:, self._integers])
        flipped = random_state.random((many, len(self._binary))) < _chance(len(self._binary))
        mutated[:, self._binary] = np.where(flipped, 1 - X[:, self._binary], X[:, self._binary])
        mutated[:, self._categories] = self._redrawn(X[:, self._categories], random_state)
        return mutated

    def _stepped(self, before: Floats, after: Floats) -> Floats:
        """Integers that were mutated go one level further at least; most mutations are smaller than that."""
        levels = self._levels[self._integers]
        old, new = np.round(before * levels), np.round(after * levels)
        stepped: Floats = np.clip(np.where(old == new, old + np.sign(after - before), new), 0, levels) / levels
        return stepped

    def _redrawn(self, before: Floats, random_state: np.random.Generator) -> Floats:
        """Some categories drawn anew among the others."""
        levels = self._levels[self._categories]
        chosen = random_state.random(before.shape) < _chance(before.shape[1])
        shifts = random_state.integers(1, levels + 1, size=before.shape)
        others = (np.round(before * levels) + shifts) % (levels + 1) / levels
        return np.where(chosen, others, before)


class Snapping(Repair):  # type: ignore[misc]  # pymoo has no types
    """Every discrete gene at its level."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__()
        self._genes = genes

    def _do(
        self,
        _problem: Problem,
        X: Floats,
        *,
        random_state: np.random.Generator,  # noqa: ARG002
        algorithm: object = None,  # noqa: ARG002
    ) -> Floats:
        return np.array([snapped(self._genes, row) for row in X])


class Unknown(DefaultDuplicateElimination):  # type: ignore[misc]  # pymoo has no types
    """Passes over points that are in the population, or among those asked for or told at any time (`known`)."""

    def __init__(self, known: set[Genome]) -> None:
        super().__init__()
        self._known = known

    def _do(self, pop: Population, other: Population | None, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        is_duplicate |= np.array([tuple(float(x) for x in one.X) in self._known for one in pop], dtype=bool)
        found: NDArray[np.bool_] = super()._do(pop, other, is_duplicate)
        return found


def _segments(pairs: int, count: int, random_state: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `count` binary genes each pair exchanges (pairs, genes)."""
    ends = np.sort(random_state.integers(0, count + 1, (pairs, 2)), axis=1)
    places = np.arange(count)
    segment = (places >= ends[:, :1]) & (places < ends[:, 1:])
    scattered = random_state.random((pairs, count)) < 0.5
    return np.where(random_state.random((pairs, 1)) < 0.5, segment, scattered)


def _chance(count: int) -> float:
    """Chance that one of so many genes of a kind is mutated: one of them on average, never more than half."""
    return min(0.5, 1 / max(1, count))
