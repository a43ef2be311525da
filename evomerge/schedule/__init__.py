"""What work is worth doing: which items new candidates get, and who gets more."""

from collections.abc import Sequence
from typing import Protocol

from evomerge.schedule.draws import Draws
from evomerge.schedule.order import hop_order
from evomerge.schedule.policy import More, Policy
from evomerge.trial import Draw

__all__ = ["Draws", "More", "Policy", "Schedule", "hop_order"]


class Schedule(Protocol):
    """Decides on items. Its answers are functions of the ledger, so that a resumed run gets the same ones."""

    def first(self, generation: int) -> Draw:
        """The items that a new candidate of a draw is put to."""
        ...

    def whole(self, generation: int) -> Draw:
        """All items of a draw, for a model that nothing is decided about."""
        ...

    def more(self, pending: Sequence[int], generation: int) -> Sequence[More]:
        """What else to score before the optimiser is told of the pending candidates; nothing: they are ready."""
        ...
