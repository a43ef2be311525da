"""How long works may take, from how long others took."""

from collections import deque

from evomerge.trial import Seconds

REMEMBERED = 100
"""Works whose durations are remembered."""
ENOUGH = 3
"""Works that must have come back before anything is made of how long they took."""
UNKNOWN = 1800.0
"""Seconds that a work may take before that, and a worker to be set up."""
SLACK = 10
"""A work may take so many times as long as the slowest of those before it, for its size."""
FIRST = 5
"""A worker's first work may take so many times as long at least: it compiles kernels, and reads from a cold disk."""


class Pace:
    """Sets deadlines: what a candidate takes whatever its items, and what these take, by layer and item.

    None is below `least` seconds.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._merges: deque[float] = deque(maxlen=REMEMBERED)
        self._scores: deque[float] = deque(maxlen=REMEMBERED)

    def note(self, seconds: Seconds, size: int) -> None:
        """A work of so many items times layers came back with marks; what it took by the worker's own clock."""
        self._merges.append(seconds.merge)
        self._scores.append(seconds.score / max(1, size))

    @property
    def unknown(self) -> float:
        """Seconds where nothing is known."""
        return max(UNKNOWN, self._least)

    def deadline(self, size: int, *, first: bool) -> float:
        """Seconds that a work of this size may take, perhaps its worker's first."""
        if len(self._merges) < ENOUGH:
            return self.unknown
        least = self._least * (FIRST if first else 1)
        return max(least, SLACK * (max(self._merges) + max(self._scores) * size))
