"""No optimiser: after the prior design nothing is asked for, because coefficients are learned from there on."""

from collections.abc import Sequence

from evomerge.trial import Observation
from evomerge.values import Genome


class Idle:
    """Asks for nothing, and recommends nothing."""

    generation = None

    def ask(self, count: int) -> list[Genome]:  # noqa: ARG002
        """None."""
        return []

    def tell(self, observations: Sequence[Observation]) -> None:
        """Passed over: the journal has them."""

    def recommend(self) -> list[Genome]:
        """None."""
        return []
