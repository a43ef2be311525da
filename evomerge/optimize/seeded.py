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
    """What is asked first: `seeds`, and then `around` points near the best of them, drawn by `seed`.

    If `steady`, half of the results are enough to go on with: where no more than half a population is in flight,
    as many are there by the time the last point is asked for, and nobody waits for a straggler.
    """

    genes: tuple[Gene, ...]
    seeds: tuple[Genome, ...]
    around: int
    seed: int
    steady: bool = False


class Seeded:
    """Asks the points of a design, then what `make` makes of the results; those that come later it is told.

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
        self._around = 0  # Points around the best seeds that are still to be asked.
        self._near: Neighbours | None = None
        self._drawn: set[Genome] = set()
        self._rank = rank
        self._make = make
        self._asked = 0
        self._waiting: list[Genome] = []
        self._told: list[Observation] = []
        self._inner: Optimizer | None = make(known) if known or not self._queue else None

    @property
    def generation(self) -> int | None:
        """All that is in flight, while the design lasts; None for steady state."""
        if self._design.steady:
            return None
        left = len(self._queue) + self._around + len(self._waiting)
        return self._inner.generation if self._inner is not None else left

    def ask(self, count: int) -> list[Genome]:
        """The design first."""
        asked: list[Genome] = []
        while len(asked) < count and (found := self._next(count - len(asked))):
            asked += found
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results of the design, and then those of the optimiser."""
        for observation in sorted(observations, key=lambda o: o.number or 0):
            if observation.genome in self._waiting:
                self._waiting.remove(observation.genome)
            self._told += [observation] if self._inner is None else []
        if self._inner is not None:
            self._inner.tell(observations)
        else:
            self._go_on()

    def recommend(self) -> list[Genome]:
        """What the optimiser recommends; nothing before it has started."""
        return self._inner.recommend() if self._inner is not None else []

    def _next(self, count: int) -> list[Genome]:
        """At most `count` points; none while results are awaited."""
        if self._inner is not None:
            # Whatever of the design is still in flight comes back to the optimiser as if it had been asked by it.
            return self._unasked(self._inner, count) if self._waiting else self._inner.ask(count)
        asked = self._queue[:count] or self._neighbours(min(count, self._around))
        self._queue = self._queue[count:]
        self._waiting += asked
        self._asked += len(asked)
        if asked:  # Now, and not when more is wanted: what is asked follows from what was asked and told alone.
            self._go_on()
        return asked

    def _unasked(self, inner: Optimizer, count: int) -> list[Genome]:
        """Points that are not in flight already, as they may be where all genes are discrete."""
        asked: list[Genome] = []
        while len(asked) < count and (found := inner.ask(1)):
            asked += [genome for genome in found if genome not in self._waiting]
        return asked

    def _go_on(self) -> None:
        """The next part of the design, or the optimiser, if enough is known for it."""
        enough = 2 * len(self._waiting) <= self._asked if self._design.steady else not self._waiting
        if self._queue or self._around or not enough:
            return
        self._told = latest(self._told)
        ranked = self._rank(self._told)
        if not ranked and self._waiting:
            return  # Everything has failed so far, and something may not have.
        if self._near is None and self._design.around and ranked:
            known = [*self._waiting, *(o.genome for o in self._told if o.genome is not None)]
            self._near = Neighbours(self._design.genes, np.random.default_rng((self._design.seed, 1)), known)
            self._around = self._design.around
        else:
            self._inner = self._make(self._told)

    def _neighbours(self, count: int) -> list[Genome]:
        """Points around the best seeds that are known by now, in turn, and where these are few around others in flight.

        Parents are known first; without those in flight the even merge would be missed.
        """
        if self._near is None or not count:
            return []
        known = self._rank([o for o in latest(self._told) if o.genome not in self._drawn])
        awaited = [genome for genome in self._waiting if genome not in self._drawn]
        centres = [*(o.genome for o in known if o.genome is not None), *awaited][:CENTRES] or self._design.seeds
        first = self._design.around - self._around
        self._around -= count
        found = [self._near.next_to(centres[index % len(centres)]) for index in range(first, first + count)]
        self._drawn.update(found)
        return found
