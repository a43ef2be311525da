"""CMA-ES for one objective (Hansen 2016), by pycma, restarted when it has converged."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.checks import FAILED, Elite, checked, genome_of, losses_of
from evomerge.optimize.kinds import snapped
from evomerge.optimize.margin import Margin
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

DIAGONAL_FROM = 200
"""Dimensions above which the covariance is kept diagonal: full matrices learn too slowly and cost too much."""
CONVERGED = 0.01
"""Largest standard deviation, in the unit cube, below which a distribution has no more to find."""
PATIENCE = 10
"""Generations without a better top eight after which the search starts anew from there."""
RESTART_SIGMA = 0.2
FAR = 2
"""Standard deviations between a binary gene's threshold and where it starts: one in 44 is flipped at first."""
IDLE = 20
"""Generations in a row that may consist of points whose results are known, before they are asked for all the same."""


class Cma:
    """One generation at a time; the same fitness for everybody never stops it.

    `start` and `sigma` are in the unit cube. A restart doubles the population and begins at the middle of the top 8.
    Discrete genes are coordinates like others, with a margin. Where all genes are discrete a point comes up again
    and again; what is known of it is then told without asking.
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
        # pycma refuses one dimension; an idle second one does no harm.
        self._axes = [*genes] if len(genes) > 1 else [*genes] * 2
        self._real = np.array([not gene.discrete for gene in self._axes])
        self._seed = seed
        self._restarts = 0
        self._population = population
        self._elite = Elite(genes)
        self._known: dict[Genome, Observation] = {}
        self._waiting: dict[Genome, list[NDArray[np.float64]]] = {}
        self._told: list[tuple[NDArray[np.float64], Observation]] = []
        self._queue: dict[Genome, list[NDArray[np.float64]]] = {}
        self._peak, self._stale = -math.inf, 0
        self._begin(self._started(start, sigma) if start else (0.5,) * len(genes), sigma)

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
            if not self._real.any():
                self._known[genome] = observation
        if self._told and not self._waiting and not self._queue:
            self._update()

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the middle of the top 8."""
        return [self._genome(np.clip(self._strategy.result.xfavorite, 0, 1)), *self._elite.middle()]

    def _genome(self, point: NDArray[np.float64]) -> Genome:
        return snapped(self._genes, point[: len(self._genes)])

    def _started(self, start: Genome, sigma: float) -> Genome:
        """Where a distribution begins: binary genes so near to their threshold that some are flipped."""
        away = {0: 0.5 - FAR * sigma, 1: 0.5 + FAR * sigma}
        pairs = zip(self._genes, snapped(self._genes, start), strict=True)
        return tuple(away[gene.level(unit)] if gene.kind == "binary" else unit for gene, unit in pairs)

    def _begin(self, start: Genome, sigma: float) -> None:
        import cma

        rng = np.random.default_rng((self._seed, self._restarts))
        x0 = np.clip([*start, *([0.5] if len(self._genes) == 1 else [])], 0.02, 0.98)
        options: dict[str, Any] = {
            "bounds": [0, 1],
            "popsize": self._population,
            "seed": math.nan,
            "randn": lambda *shape: rng.standard_normal(shape),
            "CMA_diagonal": len(self._genes) > DIAGONAL_FROM,
            # From 300 dimensions pycma's default step-size rule draws from the global generator.
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "verbose": -9,
            "verb_log": 0,
        }
        if not self._real.all():
            # pycma's own integers would draw from the global generator.
            alpha = 1 / (len(self._axes) * self._population)
            self._margin = Margin(self._axes, alpha, cma.BoundTransform([0, 1]).inverse)
            options["minstd"] = self._margin.least
        self._strategy = cma.CMAEvolutionStrategy(x0, sigma, options)

    def _draw(self) -> None:
        """A generation with something to ask for, unless hardly anything is left that is not known."""
        for _ in range(IDLE):
            self._sort(self._strategy.ask(), self._known)
            if self._queue:
                return
            self._update()
        self._sort(self._strategy.ask(), {})

    def _sort(self, points: Sequence[NDArray[np.float64]], known: Mapping[Genome, Observation]) -> None:
        """Points to ask for, each genome once, and points of known results."""
        for point in points:
            genome = self._genome(point)
            if genome in known:
                self._told.append((point, known[genome]))
            else:
                self._queue.setdefault(genome, []).append(point)

    def _update(self) -> None:
        told, self._told = sorted(self._told, key=lambda pair: pair[1].number or 0), []
        losses = [losses_of(observation, 1)[0] for _, observation in told]
        if min(losses) == FAILED:
            return  # Nothing was learnt; the next generation comes from the same distribution.
        self._strategy.tell([point for point, _ in told], losses)
        if not self._real.all():
            self._strategy.mean = self._margin.kept(self._strategy.mean, self._strategy.stds)
        self._restart_if_stale()

    def _restart_if_stale(self) -> None:
        top = self._elite.mean_utility()
        self._stale = 0 if top > self._peak else self._stale + 1
        self._peak = max(self._peak, top)
        # The margin holds discrete genes apart for ever, so that their deviations say nothing of an end.
        spread = max(self._strategy.stds[self._real], default=math.inf)
        if self._stale < PATIENCE and spread >= CONVERGED:
            return
        self._restarts += 1
        self._stale = 0
        # A generation of known points costs nothing, so that nothing else would keep it from growing for ever.
        if not self._known or self._population < len(self._known):
            self._population *= 2
        self._begin(self._started(self._elite.middle()[0], RESTART_SIGMA), RESTART_SIGMA)
