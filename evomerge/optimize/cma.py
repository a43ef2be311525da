"""CMA-ES for one objective (Hansen 2016), restarted when it has converged."""

import math
from collections.abc import Sequence

import numpy as np

from evomerge.optimize.checks import FAILED, Elite, checked, genome_of, losses_of
from evomerge.optimize.coordinates import Floats
from evomerge.optimize.distribution import Distribution
from evomerge.optimize.kinds import snapped
from evomerge.optimize.neighbours import Neighbours
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

CONVERGED = 0.01
"""Largest standard deviation, in the unit cube, below which a distribution has no more to find."""
PATIENCE = 10
"""Generations without a better top eight after which the search starts anew from there."""
RESTART_SIGMA = 0.2
IDLE = 20
"""Generations in a row of known points alone, after which new points are looked for near the best."""
ELSEWHERE = 4
"""How many of these are asked for together."""


class Cma:
    """One generation at a time; the same fitness for everybody never stops it.

    `start` and `sigma` are in the unit cube. A restart doubles the population and begins at the middle of the top 8.
    Where all genes are discrete a point comes up again and again; what is known of it is then told without asking.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        *,
        seed: int,
        start: Genome | None = None,
        sigma: float = 0.3,
        population: int,
    ) -> None:
        self._genes = genes
        self._countable = all(gene.discrete for gene in genes)
        self._seed = seed
        self._restarts = 0
        self._population = population
        self._elite = Elite(genes)
        self._known: dict[Genome, Observation] = {}
        self._waiting: dict[Genome, list[Floats]] = {}
        self._told: list[tuple[Floats, Observation]] = []
        self._queue: dict[Genome, list[Floats]] = {}
        self._peak, self._stale = -math.inf, 0
        self._begin(start, sigma)

    @property
    def generation(self) -> int:
        """The population."""
        return self._population

    def ask(self, count: int) -> list[Genome]:
        """The rest of this generation, none while its results are awaited."""
        if not self._queue and not self._waiting and not self._told:
            self._draw()
        asked = list(self._queue)[:count]
        self._waiting |= {genome: self._queue.pop(genome) for genome in asked}
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the distribution moves when the generation is complete."""
        ordered = checked(observations, len(self._genes), 1)
        self._elite.add(ordered)
        for observation in ordered:
            genome = snapped(self._genes, genome_of(observation))
            self._told += [(point, observation) for point in self._waiting.pop(genome, [])]
            if self._countable:
                self._known[genome] = observation
        if self._told and not self._waiting and not self._queue:
            self._update()

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the middle of the top 8."""
        return [self._distribution.centre, *self._elite.middle()]

    def _begin(self, start: Genome | None, sigma: float) -> None:
        rng = np.random.default_rng((self._seed, self._restarts))
        self._distribution = Distribution(self._genes, rng, population=self._population, start=start, sigma=sigma)

    def _draw(self) -> None:
        """The next generation that is not known from end to end; where none comes, points near the best."""
        for _ in range(IDLE):
            self._sort(self._distribution.draw())
            if self._queue:
                return
            self._update()
        rng = np.random.default_rng((self._seed, self._restarts, len(self._known)))
        near = Neighbours(self._genes, rng, self._known)
        centre = (self._elite.middle() or [self._distribution.centre])[0]
        # These move no distribution; what is good among them is where the next one starts.
        self._queue = {near.next_to(centre): [] for _ in range(ELSEWHERE)}

    def _sort(self, points: Sequence[Floats]) -> None:
        """Points to ask for, each genome once, and points of known results."""
        for point in points:
            genome = self._distribution.genome(point)
            if genome in self._known:
                self._told.append((point, self._known[genome]))
            else:
                self._queue.setdefault(genome, []).append(point)

    def _update(self) -> None:
        told, self._told = sorted(self._told, key=lambda pair: pair[1].number or 0), []
        losses = [losses_of(observation, 1)[0] for _, observation in told]
        if min(losses) == FAILED:
            return  # Nothing was learnt; the next generation comes from the same distribution.
        self._distribution.move([point for point, _ in told], losses)
        self._restart_if_stale()

    def _restart_if_stale(self) -> None:
        top = self._elite.mean_utility()
        self._stale = 0 if top > self._peak else self._stale + 1
        self._peak = max(self._peak, top)
        if self._stale < PATIENCE and self._distribution.spread >= CONVERGED:
            return
        self._restarts += 1
        self._stale = 0
        # A generation of known points costs nothing, so that nothing else would keep it from growing for ever.
        if not self._known or self._population < len(self._known):
            self._population *= 2
        self._begin(self._elite.middle()[0], RESTART_SIGMA)
