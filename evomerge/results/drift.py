"""How well merges still foretell plain text, which no objective measures."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from evomerge.estimate import Pair
from evomerge.estimate.grade import mean_and_error
from evomerge.items import TEXT, TEXT_LOSS
from evomerge.results.state import RunState
from evomerge.space import UNIFORM
from evomerge.store import RunStore
from evomerge.values import Value


class Drift(Value):
    """A model's perplexity of plain text, and its change against another model's as a share of that, paired by piece.

    Both with standard errors, those of exponentials of mean losses, to first order.
    """

    perplexity: Pair
    change: Pair | None = None


class Drifts:
    """Drifts of the models of a run that were put to its text, against one of them.

    `of` is that one: what the guard is about, or else the uniform average, or the first there is (the base, if any).
    """

    def __init__(self, state: RunState, store: RunStore) -> None:
        self._state = state
        self._store = store
        self._losses = {n: found for n in state.candidates if (found := self._read(n)) is not None}
        names = {state.candidates[number].name: number for number in self._losses}
        guard = store.file.spec.guard
        self.of = _first((guard.of if guard is not None else None, UNIFORM, *store.file.parents.names), names)
        self._rival = None if self.of is None else self._losses[names[self.of]]

    def of_model(self, number: int) -> Drift | None:
        """That of a candidate or baseline; None where it was not measured."""
        losses = self._losses.get(number)
        if losses is None:
            return None
        same = self._rival is None or self.of == self._state.candidates[number].name
        change = None if same or self._rival is None else _exponential(losses - self._rival)
        shifted = None if change is None else (change[0] - 1, change[1])
        return Drift(perplexity=_exponential(losses), change=shifted)

    def _read(self, number: int) -> NDArray[np.float64] | None:
        """Nats a token of each piece (pieces,)."""
        for event in self._state.scored.get((number, "confirm"), ()):
            if TEXT in (self._state.works[event.work].draw.places or {}) and event.marks is not None:
                return np.asarray((self._store.marks(event) or {})[TEXT][TEXT_LOSS])
        return None


def _first(wanted: Iterable[str | None], there: Iterable[str | None]) -> str | None:
    known = set(there)
    return next((name for name in wanted if name is not None and name in known), None)


def _exponential(losses: NDArray[np.float64]) -> Pair:
    """The exponential of a mean, and its standard error."""
    mean, error = mean_and_error(losses, [str(place) for place in range(len(losses))])
    return math.exp(mean), math.exp(mean) * error
