"""The distribution of a CMA-ES, begun anew when it has converged."""

import math
from collections.abc import Sequence

import numpy as np

from evomerge.optimize.checks import FAILED, Elite, genome_of, losses_of
from evomerge.optimize.coordinates import Floats
from evomerge.optimize.distribution import Distribution
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

CONVERGED = 0.01
"""Largest standard deviation, in the unit cube, below which a distribution has no more to find."""
PATIENCE = 10
"""Populations without a better top eight after which the search starts anew from there."""
RESTART_SIGMA = 0.2


class Restarts:
    """One distribution after another; a restart doubles the population and begins at the middle of the top 8.

    `start` and `sigma` are those of the first, in the unit cube; `together` is whether populations are drawn at once.
    `elite` is the best of what was told, which the caller adds to; `count` is how often the search was begun anew.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        seed: int,
        start: Genome | None,
        sigma: float,
        population: int,
        together: bool = True,
    ) -> None:
        self._genes = genes
        self._together = together
        self._seed = seed
        self.count = 0
        self.population = population
        self.elite = Elite(genes)
        self._peak, self._stale = -math.inf, 0
        self._sigma = sigma
        self._given: float | None = None  # The best of what was never asked for; None once something has moved.
        self._corrections = 0
        self._begin(start, sigma, self.rng())

    def move(self, told: Sequence[tuple[Floats, Observation]], known: int) -> None:
        """Towards the better half of a population of points; `known` is how many points will not be asked for again."""
        told = sorted(told, key=lambda pair: pair[1].number or 0)
        losses = [losses_of(observation, 1)[0] for _, observation in told]
        if min(losses) == FAILED:
            return  # Nothing was learnt; the next points come from the same distribution.
        self._given = None
        self.distribution.move([point for point, _ in told], losses)
        self._restart_if_stale(known)

    def begin_with(self, given: Sequence[Observation]) -> None:
        """Keep in mind how good the best of the points is that a start was chosen from."""
        self._given = max((o.utilities[0] for o in given if o.utilities is not None), default=None)

    def reconsider(self, late: Observation) -> None:
        """Begin at a point that was not known when the start was chosen, if it is better and nothing has moved yet."""
        if self._given is None or late.utilities is None or late.utilities[0] <= self._given:
            return
        self._given = late.utilities[0]
        self._corrections += 1
        self._begin(genome_of(late), self._sigma, self.rng(0, self._corrections))

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the middle of the top 8."""
        return [self.distribution.centre, *self.elite.middle()]

    def rng(self, *address: int) -> np.random.Generator:
        """Random numbers of this distribution."""
        return np.random.default_rng((self._seed, self.count, *address))

    def _begin(self, start: Genome | None, sigma: float, rng: np.random.Generator) -> None:
        self.distribution = Distribution(
            self._genes,
            rng,
            population=self.population,
            start=start,
            sigma=sigma,
            together=self._together,
        )

    def _restart_if_stale(self, known: int) -> None:
        top = self.elite.mean_utility()
        self._stale = 0 if top > self._peak else self._stale + 1
        self._peak = max(self._peak, top)
        if self._stale < PATIENCE and self.distribution.spread >= CONVERGED:
            return
        self.count += 1
        self._stale = 0
        # A generation of known points costs nothing, so that nothing else would keep it from growing for ever.
        if not known or self.population < known:
            self.population *= 2
        self._begin(self.elite.middle()[0], RESTART_SIGMA, self.rng())
