"""CMA-ES for one objective (Hansen 2016), by pycma, restarted when it has converged."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.checks import FAILED, Elite, checked, genome_of, losses_of
from evomerge.trial import Observation
from evomerge.values import Genome

DIAGONAL_FROM = 200
"""Dimensions above which the covariance is kept diagonal: full matrices learn too slowly and cost too much."""
CONVERGED = 0.01
"""Largest standard deviation, in the unit cube, below which a distribution has no more to find."""
PATIENCE = 10
"""Generations without a better top eight after which the search starts anew from there."""
RESTART_SIGMA = 0.2


class Cma:
    """One generation at a time; the same fitness for everybody never stops it.

    `start` and `sigma` are in the unit cube. A restart doubles the population and begins at the mean of the top 8.
    """

    def __init__(
        self,
        dimension: int,
        *,
        seed: int,
        start: Genome | None = None,
        sigma: float = 0.3,
        population: int,
    ) -> None:
        self._dimension = dimension
        self._seed = seed
        self._restarts = 0
        self._population = population
        self._elite = Elite()
        self._waiting: dict[Genome, list[NDArray[np.float64]]] = {}
        self._told: list[tuple[NDArray[np.float64], Observation]] = []
        self._queue: list[NDArray[np.float64]] = []
        self._peak, self._stale = -math.inf, 0
        self._begin(start or (0.5,) * dimension, sigma)

    @property
    def generation(self) -> int:
        """The population."""
        return self._population

    def ask(self, count: int) -> list[Genome]:
        """The rest of this generation, none while its results are awaited."""
        if not self._queue and not self._waiting and not self._told:
            self._queue = list(self._strategy.ask())
        asked: list[Genome] = []
        while self._queue and len(asked) < count:
            point = self._queue.pop(0)
            genome = tuple(float(x) for x in point[: self._dimension])
            self._waiting.setdefault(genome, []).append(point)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the distribution moves when the generation is complete."""
        ordered = checked(observations, self._dimension, 1)
        self._elite.add(ordered)
        for observation in ordered:
            points = self._waiting.get(genome_of(observation), [])
            if points:
                self._told.append((points.pop(0), observation))
        self._waiting = {genome: points for genome, points in self._waiting.items() if points}
        if self._told and not self._waiting and not self._queue:
            self._update()

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the mean of the top 8."""
        centre = self._strategy.result.xfavorite
        return [tuple(float(x) for x in np.clip(centre[: self._dimension], 0, 1)), *self._elite.mean()]

    def _begin(self, start: Genome, sigma: float) -> None:
        import cma

        rng = np.random.default_rng((self._seed, self._restarts))
        # pycma refuses one dimension; an idle second one does no harm.
        x0 = np.clip([*start, *([0.5] if self._dimension == 1 else [])], 0.02, 0.98)
        options: dict[str, Any] = {
            "bounds": [0, 1],
            "popsize": self._population,
            "seed": math.nan,
            "randn": lambda *shape: rng.standard_normal(shape),
            "CMA_diagonal": self._dimension > DIAGONAL_FROM,
            # From 300 dimensions pycma's default step-size rule draws from the global generator.
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "verbose": -9,
            "verb_log": 0,
        }
        self._strategy = cma.CMAEvolutionStrategy(x0, sigma, options)

    def _update(self) -> None:
        told, self._told = sorted(self._told, key=lambda pair: pair[1].number or 0), []
        losses = [losses_of(observation, 1)[0] for _, observation in told]
        if min(losses) == FAILED:
            return  # Nothing was learnt; the next generation comes from the same distribution.
        self._strategy.tell([point for point, _ in told], losses)
        self._restart_if_stale()

    def _restart_if_stale(self) -> None:
        top = self._elite.mean_utility()
        self._stale = 0 if top > self._peak else self._stale + 1
        self._peak = max(self._peak, top)
        if self._stale < PATIENCE and max(self._strategy.stds) >= CONVERGED:
            return
        self._restarts += 1
        self._stale = 0
        self._population *= 2
        self._begin(self._elite.mean()[0], RESTART_SIGMA)
