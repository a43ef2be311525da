"""What work is worth doing next."""

from collections.abc import Sequence
from typing import Protocol

from evomerge.trial import Draw, Work
from evomerge.values import Value


class Ask(Value):
    """Have a new candidate proposed, and score it on this draw."""

    draw: Draw


class Schedule(Protocol):
    """Decides, whenever workers are free, what they should do."""

    def next(self, free: int) -> Sequence[Work | Ask]:
        """At most `free` errands."""
        ...


class FixedItems:
    """The first schedule: every candidate is scored once, on all of the search pool."""

    def next(self, free: int) -> Sequence[Work | Ask]:
        """New candidates for all who are free."""
        return [Ask(draw=Draw(pool="search"))] * free
