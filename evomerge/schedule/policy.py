"""Who gets more items: the better part of a generation, rung by rung, and elites that may have been lucky."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.estimate import Appraiser, Piece
from evomerge.estimate.appraise import marked
from evomerge.fitness import Bounds, EstimatorSpec, bounds_of
from evomerge.schedule.draws import Draws
from evomerge.trial import Draw, Purpose
from evomerge.values import Value

MOST_ELITES = 8
"""Candidates among which those to be scored again are looked for, with one objective."""


class More(Value):
    """Score a candidate on these items too."""

    number: int
    draw: Draw
    purpose: Purpose


class Policy:
    """Successive halving within each draw (Jamieson & Talwalkar 2016), then some elites on the draw's items.

    `scalar` makes one number of several utilities.
    """

    def __init__(
        self,
        appraiser: Appraiser,
        draws: Draws,
        spec: EstimatorSpec,
        scalar: Callable[[Sequence[float], Bounds], float],
    ) -> None:
        self._appraiser = appraiser
        self._ledger = appraiser.ledger
        self._draws = draws
        self._spec = spec
        self._scalar = scalar

    def first(self, generation: int) -> Draw:
        """The items of the lowest rung."""
        draw = self._draws.draw(generation)
        return draw if draw.places is None or not self._spec.rungs else draw.piece(0, self._spec.rungs[0])

    def whole(self, generation: int) -> Draw:
        """The items of the highest rung."""
        return self._draws.draw(generation)

    def more(self, pending: Sequence[int], generation: int) -> Sequence[More]:
        """The next rung for those who earned it; if nobody did, elites on the items of this draw."""
        return self._climbing(pending, generation) or self._refreshed(generation)

    def _climbing(self, pending: Sequence[int], generation: int) -> list[More]:
        """Candidates that are among the best of those who came as far as they, in this draw; the lowest rung first."""
        whole = self._draws.draw(generation)
        on_draw = self._ledger.on(generation)
        if whole.places is None:
            return []
        ends = [*self._spec.rungs[1:], max(map(len, whole.places.values()))]
        for rung, (start, stop) in enumerate(zip(self._spec.rungs, ends, strict=False), start=1):
            there = {n: pieces for n, pieces in on_draw.items() if len(marked(pieces)) >= rung and n <= max(pending)}
            best = self._best({n: pieces[:rung] for n, pieces in there.items()})
            going = {n for n in best[: math.ceil(self._spec.keep * len(best))] if len(there[n]) == rung}
            if going & set(pending):  # Who goes on from the next one is known when all of these are there.
                piece = whole.piece(start, stop)
                return [More(number=n, draw=piece, purpose="search") for n in sorted(going & set(pending))]
        return []

    def _refreshed(self, generation: int) -> list[More]:
        """As many elites as the share of the search's items that is theirs pays for, those with least behind them."""
        draw = self._draws.draw(generation)
        if draw.places is None or not self._spec.rotates:
            return []
        paid = self._spec.refresh * self._ledger.drawn[False] - self._ledger.drawn[True]
        count = int(paid // self._spec.drawn(self._ledger.table))
        if count < 1:
            return []
        return [More(number=n, draw=draw, purpose="refresh") for n in self._elites(generation)[:count]]

    def _elites(self, generation: int) -> list[int]:
        """Those that may be the best, by what was known without scoring any again on this draw."""
        known = {}
        for number, pieces in self._ledger.candidates():
            before = [piece for piece in marked(pieces) if not (piece.again and piece.draw.generation == generation)]
            if before:
                known[number] = before
        best = self._best(known)
        rivals = self._not_worse({number: known[number] for number in best})
        stale = [n for n in rivals if all(_rests_on_others(piece, generation) for piece in self._ledger.of(n))]
        return sorted(stale, key=lambda n: sum(piece.size() for piece in known[n]))

    def _not_worse(self, ranked: dict[int, list[Piece]]) -> list[int]:
        """Of candidates in order, those of the front; with one objective, those that the best is not surely above."""
        numbers = list(ranked)
        labels = list(self._appraiser.grader.fitness.objectives)
        if len(labels) > 1:
            points = np.array([self._appraiser.utilities(ranked[n]) for n in numbers])
            return [n for n, worse in zip(numbers, _beaten(points), strict=True) if not worse]
        sign, first = self._appraiser.grader.sign(labels[0]), ranked[numbers[0]]
        gaps = {n: self._appraiser.difference(first, ranked[n], labels[0]) for n in numbers[1:MOST_ELITES]}
        return [numbers[0], *(n for n, gap in gaps.items() if (gap.low if sign > 0 else -gap.high) <= 0)]

    def _best(self, known: Mapping[int, Sequence[Piece]]) -> list[int]:
        """Candidates, best first: by how many beat them, then by scalarisation."""
        numbers, points = list(known), np.array([self._appraiser.utilities(pieces) for pieces in known.values()])
        if not len(points):
            return []
        bounds = bounds_of(points) if points.shape[1] > 1 else ()
        merits = [self._scalar(point, bounds) for point in points] if bounds else points[:, 0]
        order = np.lexsort(np.array([numbers, np.negative(merits), _beaten(points)]))
        return [numbers[place] for place in order]


def _beaten(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many others are at least as good in everything and better in something (points,)."""
    if points.shape[1] == 1:  # Of thousands, pairs would take longer than everything else.
        return len(points) - np.searchsorted(np.sort(points[:, 0]), points[:, 0], side="right")
    no_worse = np.ones((len(points), len(points)), dtype=bool)
    better = ~no_worse
    for column in points.T:
        no_worse &= column[:, None] >= column
        better |= column[:, None] > column
    return np.asarray((no_worse & better).sum(axis=0))


def _rests_on_others(piece: Piece, generation: int) -> bool:
    """Whether there is something to learn from this draw beside the piece."""
    return piece.draw.places is not None and piece.draw.generation != generation
