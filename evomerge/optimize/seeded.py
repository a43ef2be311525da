"""The prior design: fixed recipes and points around the best of them, before an optimiser starts on its own."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import qmc

from evomerge.optimize import Optimizer
from evomerge.optimize.checks import latest
from evomerge.trial import Observation
from evomerge.values import Genome

RADIUS = 0.25
"""Half the width, in the unit cube, of the box around a good seed in which its neighbours are drawn."""
CENTRES = 4


class Seeded:
    """Asks `seeds`, then `around` points near the best of them, then what `make` makes of the results.

    `rank` orders observations, best first. `known` are results to start from instead of the design.
    """

    def __init__(
        self,
        seeds: Sequence[Genome],
        around: int,
        *,
        seed: int,
        rank: Callable[[Sequence[Observation]], list[Observation]],
        make: Callable[[Sequence[Observation]], Optimizer],
        known: Sequence[Observation] = (),
    ) -> None:
        self._queue = list(dict.fromkeys(seeds))
        self._around = around
        self._rng = np.random.default_rng((seed, 1))
        self._rank = rank
        self._make = make
        self._waiting: list[Genome] = []
        self._told: list[Observation] = []
        self._inner: Optimizer | None = make(known) if known or not self._queue else None

    @property
    def generation(self) -> int | None:
        """All that is in flight, while the design lasts."""
        return self._inner.generation if self._inner is not None else len(self._queue) + len(self._waiting)

    def ask(self, count: int) -> list[Genome]:
        """The design first."""
        if self._inner is not None:
            return self._inner.ask(count)
        asked, self._queue = self._queue[:count], self._queue[count:]
        self._waiting += asked
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results of the design, and then those of the optimiser."""
        if self._inner is not None:
            self._inner.tell(observations)
            return
        for observation in sorted(observations, key=lambda o: o.number or 0):
            if observation.genome in self._waiting:
                self._waiting.remove(observation.genome)
            self._told.append(observation)
        if self._waiting or self._queue:
            return
        self._told = latest(self._told)
        if self._around and self._rank(self._told):
            self._queue, self._around = self._neighbours(self._around), 0
        else:
            self._inner = self._make(self._told)

    def recommend(self) -> list[Genome]:
        """What the optimiser recommends; nothing before it has started."""
        return self._inner.recommend() if self._inner is not None else []

    def _neighbours(self, count: int) -> list[Genome]:
        """Scrambled Sobol points in boxes around the best seeds, in turn."""
        centres = [o.genome for o in self._rank(self._told)[:CENTRES] if o.genome is not None]
        points = qmc.Sobol(len(centres[0]), scramble=True, rng=self._rng)
        found = []
        for i in range(count):
            offset = (points.random(1)[0] * 2 - 1) * RADIUS
            found.append(tuple(float(x) for x in np.clip(np.array(centres[i % len(centres)]) + offset, 0, 1)))
        return found
