"""What every optimiser holds its caller to, and what it keeps of the told points."""

import heapq
import math
from collections.abc import Sequence

from evomerge.optimize.kinds import middle
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

TOP = 8
FAILED = 1e12
"""The loss of a failure, where an optimiser needs one: no result counts as so bad."""


def checked(observations: Sequence[Observation], dimension: int, objectives: int) -> list[Observation]:
    """The observations in the order of their numbers, so that ties are broken alike in every replay.

    Raises:
        ValueError: a genome or a result has another length than the optimiser was made for, or is not finite.
    """
    for observation in observations:
        genome, utilities = observation.genome, observation.utilities
        if genome is None or len(genome) != dimension:
            raise ValueError(
                f"a genome of {dimension} genes was expected, number {observation.number} has another length"
            )
        if utilities is not None and (len(utilities) != objectives or not all(map(math.isfinite, utilities))):
            raise ValueError(
                f"{objectives} finite utilities were expected, number {observation.number} has {utilities}"
            )
    return sorted(observations, key=lambda o: (o.number is None, o.number or 0))


def latest(observations: Sequence[Observation]) -> list[Observation]:
    """Of points told more than once the last observation, where the first one stood."""
    found = {o.number if o.number is not None else (o.genome, i): o for i, o in enumerate(observations)}
    return list(found.values())


def losses_of(observation: Observation, objectives: int) -> list[float]:
    """Utilities turned over, for libraries that minimise; a failure ranks below every result, whenever it came."""
    if observation.utilities is None:
        return [FAILED] * objectives
    return [min(-utility, FAILED / 2) for utility in observation.utilities]


def genome_of(observation: Observation) -> Genome:
    """The genome, which `checked` made sure of."""
    assert observation.genome is not None
    return observation.genome


class Elite:
    """The best points of one objective told so far; of a point told again the last result counts."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        self._genes = genes
        self._known: dict[int | Genome, tuple[float, Genome]] = {}

    def add(self, observations: Sequence[Observation]) -> None:
        """Take results in; failures are passed over."""
        for observation in observations:
            if observation.utilities is not None:
                genome = genome_of(observation)
                key = genome if observation.number is None else observation.number
                self._known[key] = observation.utilities[0], genome

    def mean_utility(self) -> float:
        """Mean of the best eight results, minus infinity before any."""
        best = self._best()
        return sum(u for u, _ in best) / len(best) if best else -math.inf

    def middle(self) -> list[Genome]:
        """The middle of the best eight points: under noise a better pick than the luckiest; none before any."""
        best = self._best()
        return [middle(self._genes, [genome for _, genome in best])] if best else []

    def _best(self) -> list[tuple[float, Genome]]:
        return heapq.nsmallest(TOP, self._known.values(), key=lambda entry: -entry[0])
