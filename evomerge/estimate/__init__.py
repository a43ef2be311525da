"""Marks to utilities: what a model is worth by what it got right on some items, and how sure that is."""

from collections.abc import Sequence
from typing import Protocol

from evomerge.estimate.appraise import Appraiser
from evomerge.estimate.calibration import Calibration
from evomerge.estimate.evidence import Estimate
from evomerge.estimate.grade import Grader, Pair
from evomerge.estimate.ledger import Ledger, Piece
from evomerge.estimate.loss import with_loss, with_losses
from evomerge.trial import Observation

__all__ = [
    "Appraiser",
    "Calibration",
    "Estimate",
    "Grader",
    "Ledger",
    "Observer",
    "Pair",
    "Piece",
    "with_loss",
    "with_losses",
]


class Observer(Protocol):
    """Turns marks into what the optimiser is told; bound to a fitness, its items and a ledger of all marks.

    Asked about a candidate that was told before, it revises.
    """

    def observe(self, numbers: Sequence[int]) -> list[Observation]:
        """Utilities with standard errors, higher is better."""
        ...
