"""The prior design: fixed recipes and points around the best of them, before an optimiser starts on its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.optimize import Optimizer
from evomerge.optimize.checks import latest
from evomerge.optimize.neighbours import Neighbours
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

CENTRES = 4


@dataclass(frozen=True)
class Design:
    """What is asked first: `seeds`, and then `around` points near the best of them, drawn by `seed`."""

    genes: tuple[Gene, ...]
    seeds: tuple[Genome, ...]
    around: int
    seed: int


class Seeded:
    """Asks the points of a design, then what `make` makes of the results.

    `rank` orders observations, best first. `known` are results to start from instead of the design.
    """

    def __init__(
        self,
        design: Design,
        *,
        rank: Callable[[Sequence[Observation]], list[Observation]],
        make: Callable[[Sequence[Observation]], Optimizer],
        known: Sequence[Observation] = (),
    ) -> None:
        self._design = design
        self._queue = list(dict.fromkeys(design.seeds))
        self._around = design.around
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
        """Points around the best seeds, in turn."""
        centres = [o.genome for o in self._rank(self._told)[:CENTRES] if o.genome is not None]
        rng = np.random.default_rng((self._design.seed, 1))
        near = Neighbours(self._design.genes, rng, [o.genome for o in self._told if o.genome is not None])
        return [near.next_to(centres[index % len(centres)]) for index in range(count)]
