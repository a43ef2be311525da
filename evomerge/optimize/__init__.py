"""Ask and tell over genes: where to look next, given what was found so far."""

from collections.abc import Sequence
from typing import Protocol

from evomerge.trial import Observation
from evomerge.values import Genome

__all__ = ["RECOMMENDED", "Optimizer"]

RECOMMENDED = 2
"""Genomes that an optimiser recommends, at most: a centre and a mean."""


class Optimizer(Protocol):
    """Proposes genomes in the unit cube and learns their utilities, higher is better.

    `generation` is how many results it wants together; None means one by one. A failed candidate
    (`utilities` None) ranks below every other. What it does depends on its seed and on what it was told, nothing
    else, so a replay of the journal restores it.
    """

    @property
    def generation(self) -> int | None:
        """Results wanted together, None for steady state."""
        ...

    def ask(self, count: int) -> list[Genome]:
        """At most `count` genomes; none while results are awaited."""
        ...

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results in any order, of points asked or not; a number told before is a revision."""
        ...

    def recommend(self) -> list[Genome]:
        """Its own idea of the best: a distribution's centre, the mean of the top 8; at most RECOMMENDED."""
        ...
