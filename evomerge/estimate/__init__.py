"""Marks to utilities: what a model is worth by what it got right, and how sure that is."""

from collections.abc import Sequence
from typing import Protocol

from evomerge.estimate.grade import Grader, MeanObserver, Pair
from evomerge.trial import Evaluation, Observation

__all__ = ["Grader", "MeanObserver", "Observer", "Pair"]


class Observer(Protocol):
    """Turns marks into what the optimiser is told; bound to a fitness and its items.

    May return revised observations of older candidates beside those of the evaluations given.
    """

    def observe(self, evaluations: Sequence[Evaluation]) -> list[Observation]:
        """Utilities with standard errors, higher is better."""
        ...
