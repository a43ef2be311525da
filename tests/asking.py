"""An optimiser asked and told as a study does, without models."""

from collections.abc import Callable

import numpy as np

from evomerge.optimize import Optimizer
from evomerge.trial import Observation
from evomerge.values import Genome


def value(genome: Genome, objectives: int) -> tuple[float, ...]:
    x = np.asarray(genome)
    return tuple(-float(((x - 0.3 - 0.4 * i) ** 2).mean()) for i in range(objectives))


class Loop:
    """Asks and tells as a study does: whole generations where the optimiser wants them, in order of numbers."""

    def __init__(self, optimizer: Optimizer, objectives: int, worth: Callable[[Genome], object] | None = None) -> None:
        self.optimizer = optimizer
        self.objectives = objectives
        self.worth = worth or (lambda genome: value(genome, objectives))
        self.asked: list[Genome] = []
        self.pending: list[int] = []

    def observation(self, number: int) -> Observation:
        genome = self.asked[number]
        return Observation(number=number, genome=genome, utilities=self.worth(genome))  # type: ignore[arg-type]

    def run(self, count: int, width: int = 1) -> list[Genome]:
        while len(self.asked) < count:
            found = self.optimizer.ask(min(width, count - len(self.asked)))
            self.pending += range(len(self.asked), len(self.asked) + len(found))
            self.asked += found
            if not found or self.optimizer.generation is None:
                self.tell()
        return self.asked

    def tell(self) -> None:
        assert self.pending, "the optimiser asks for nothing and awaits nothing"
        observations, self.pending = [self.observation(number) for number in self.pending], []
        self.optimizer.tell(observations)
