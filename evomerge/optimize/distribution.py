"""The normal distribution that CMA-ES moves (Hansen 2016), by pycma, over genes of all kinds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evomerge.optimize.coordinates import Coordinates, Floats
from evomerge.optimize.margin import Margin
from evomerge.space import Gene
from evomerge.values import Genome

DIAGONAL_FROM = 200
"""Dimensions above which the covariance is kept diagonal: full matrices learn too slowly and cost too much."""


class Distribution:
    """Drawn from in any number, moved a population at a time. Discrete genes are kept apart by a margin.

    `start` is the mean, None for the middle of the unit cube; `sigma` the standard deviation, `population` how many
    points move it, drawn by `rng` alone; `together` is whether they are all drawn at once.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        rng: np.random.Generator,
        *,
        population: int,
        start: Genome | None = None,
        sigma: float,
        together: bool = True,
    ) -> None:
        import cma

        self._coordinates = Coordinates(genes)
        # pycma refuses one dimension; an idle second one does no harm.
        idle = [0.5] if len(self._coordinates.real) == 1 else []
        x0 = np.clip([*self._coordinates.start(start, sigma), *idle], 0.02, 0.98)
        self._real = np.array([*self._coordinates.real, *self._coordinates.real[: len(idle)]])
        self._margin: Margin | None = None
        if not self._real.all():
            alpha = 1 / (len(genes) * population)
            self._margin = Margin(self._coordinates, alpha, cma.BoundTransform([0, 1]).inverse)
        options = self._options(rng, population)
        if not together:
            options["CMA_mirrors"] = 0  # Small populations have mirrored pairs, which pycma draws with the others only.
        self._strategy = cma.CMAEvolutionStrategy(x0, sigma, options)
        self._fresh = False  # Whether anything was drawn since it moved.

    @property
    def spread(self) -> float:
        """The largest standard deviation of a real gene, infinite where there is none.

        The margin holds discrete genes apart for ever, so that their deviations say nothing of an end.
        """
        return float(max(self._strategy.stds[self._real], default=math.inf))

    @property
    def centre(self) -> Genome:
        """The genome at the mean."""
        return self.genome(np.clip(self._strategy.result.xfavorite, 0, 1))

    def genome(self, point: Floats) -> Genome:
        """What a point that was drawn is called outside."""
        return self._coordinates.genome(point)

    def draw(self, count: int | None = None) -> list[Floats]:
        """So many points; as many as the population has, if left out."""
        self._fresh = True
        return list(self._strategy.ask(count))

    def move(self, points: Sequence[Floats], losses: Sequence[float]) -> None:
        """Towards the better half of a population; its points may have been drawn before the last move."""
        if not self._fresh:
            self._strategy.ask(1)  # pycma does not move twice without, even if that point is never seen.
        self._fresh = False
        self._strategy.tell(points, losses)
        if self._margin is not None:
            count = len(self._coordinates.real)
            self._strategy.mean[:count] = self._margin.kept(self._strategy.mean[:count], self._strategy.stds[:count])

    def _options(self, rng: np.random.Generator, population: int) -> dict[str, Any]:
        import cma

        options: dict[str, Any] = {
            "bounds": [0, 1],
            "popsize": population,
            "seed": math.nan,
            "randn": lambda *shape: rng.standard_normal(shape),
            "CMA_diagonal": len(self._coordinates.real) > DIAGONAL_FROM,
            # From 300 dimensions pycma's default step-size rule draws from the global generator.
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "verbose": -9,
            "verb_log": 0,
        }
        if self._margin is not None:
            # pycma's own integers would draw from the global generator.
            options["minstd"] = [*self._margin.least, *[0.0] * (len(self._real) - len(self._margin.least))]
        return options
