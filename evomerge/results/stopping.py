"""Whether a search may end before its budget is spent: its target is reached, or the front has stopped growing."""

from collections.abc import Mapping, Sequence

from evomerge.estimate import Appraiser
from evomerge.results.pareto import hypervolume, worst
from evomerge.results.state import RunState

GAIN = 0.01
"""The share by which a hypervolume has to grow, or nothing was gained."""
Utilities = tuple[float, ...]


class Stopping:
    """The stopping rules of a budget. They go by what the optimiser was told, so a resumed search ends where it would.

    The hypervolume is measured from the worst fixed recipe in each objective; with one objective it is how much better
    the best candidate is.
    """

    def __init__(self, state: RunState, appraiser: Appraiser) -> None:
        self._state = state
        self._appraiser = appraiser
        self._read = 0
        self._told: dict[int, Utilities | None] = {}
        """What was said last of every candidate, in the order in which they were first told of."""

    def reason(self) -> str | None:
        """Why the search may end, in a line; None if it goes on, or if nothing was told since it was last asked."""
        budget, told = self._state.budget, self._state.told[self._read :]
        if not told or (budget.stall is None and not budget.target):
            return None
        self._read += len(told)
        self._told |= {o.number: o.utilities for each in told for o in each.observations if o.number is not None}
        if budget.stall is not None and self._has_stalled(budget.stall):
            return f"it has stalled: the last {budget.stall} candidates add less than {GAIN:.0%} to the hypervolume"
        winner = self._winner(budget.target) if budget.target else None
        return None if winner is None else f"candidate {winner} has reached the target"

    def _has_stalled(self, last: int) -> bool:
        """Whether the front without the last candidates, by what is known of all now, is as good as with them."""
        points = list(self._told.values())
        return len(points) > last and self._volume(points) <= self._volume(points[:-last]) * (1 + GAIN)

    def _volume(self, points: Sequence[Utilities | None]) -> float:
        grader, candidates = self._appraiser.grader, self._state.candidates
        known = [point for point in points if point is not None]
        fixed = [point for n, point in self._told.items() if point is not None and candidates[n].name is not None]
        if not known or not fixed:
            return 0.0
        return hypervolume(known, worst(fixed, [label in grader.costs for label in grader.fitness.objectives]))

    def _winner(self, target: Mapping[str, float]) -> int | None:
        """A candidate that reaches the target by its shrunken values: of many that do by plain ones some is lucky."""
        plain = {number: self._appraiser.values(number) or {} for number, point in self._told.items() if point}
        values = [{label: estimate.value for label, estimate in found.items()} for found in plain.values()]
        if not any(self._reaches(target, each) for each in values):
            return None
        genomes = {n: genome for n in self._told if (genome := self._state.candidates[n].genome) is not None}
        for number, row in sorted(self._appraiser.shrunken(genomes).items()):
            if self._reaches(target, {label: value for label, (value, _) in row.items()}):
                return number
        return None

    def _reaches(self, target: Mapping[str, float], values: Mapping[str, float]) -> bool:
        sign = self._appraiser.grader.sign
        return all(sign(label) * values[label] >= sign(label) * wanted for label, wanted in target.items())
