"""Whether a search may end before its budget is spent: its target is reached, or the front has stopped growing."""

from collections.abc import Mapping, Sequence

from evomerge.estimate import Appraiser
from evomerge.events import Event, Told
from evomerge.results.pareto import hypervolume, worst
from evomerge.results.state import RunState

GAIN = 0.01
"""The share by which a hypervolume has to grow, or nothing was gained."""
Utilities = tuple[float, ...]


class Stopping:
    """The stopping rules of a budget, which go by what the optimiser was told.

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
        """Why the search may end, in a line; None if it goes on.

        To be asked when the optimiser has just been told: then a search that was cut there and one that was not are
        judged by the same.
        """
        budget, told = self._state.budget, self._state.told[self._read :]
        if budget.stall is None and not budget.target:
            return None
        self._read += len(told)
        self._told |= {o.number: o.utilities for each in told for o in each.observations if o.number is not None}
        if budget.stall is not None and self._has_stalled(budget.stall):
            return f"it has stalled: the last {budget.stall} candidates add less than {GAIN:.0%} to the hypervolume"
        winner = self._winner(budget.target) if budget.target else None
        return None if winner is None else f"candidate {winner} has reached the target"

    def _has_stalled(self, last: int) -> bool:
        """Whether the front without the last candidates, by what is known of all now, is as good as with them."""
        points, fixed = list(self._told.values()), self._fixed()
        if len(points) <= last or not fixed:
            return False
        reference = worst(fixed, self._appraiser.grader.are_costs)
        return _volume(points, reference) <= _volume(points[:-last], reference) * (1 + GAIN)

    def _fixed(self) -> list[Utilities]:
        """What fixed recipes are worth, those in the space and those beside it."""
        named = [number for number, asked in self._state.candidates.items() if asked.name is not None]
        outside = {o.number: o.utilities for o in self._appraiser.observe([n for n in named if n not in self._told])}
        found = [self._told[number] if number in self._told else outside[number] for number in named]
        return [point for point in found if point is not None]

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


def was_cut_behind_a_telling(events: Sequence[Event], state: RunState) -> bool:
    """Whether the last thing that was done is telling the optimiser of candidates of the search."""
    last = next((event for event in reversed(events) if not event.of_process), None)
    if not isinstance(last, Told):
        return False
    numbers = [each.number for each in last.observations if each.number is not None]
    return not any(state.candidates[number].origin == "recommended" for number in numbers)


def _volume(points: Sequence[Utilities | None], reference: Sequence[float]) -> float:
    known = [point for point in points if point is not None]
    return hypervolume(known, reference) if known else 0.0
