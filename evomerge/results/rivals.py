"""What finalists are measured against: baselines, on the same confirm items, item by item."""

from collections.abc import Callable, Collection, Mapping, Sequence

from evomerge.estimate import Grader, Pair
from evomerge.items import PoolName
from evomerge.results.row import Row
from evomerge.trial import Draw, Marks


class Rivals:
    """The baselines of a run; `marks` reads those of a model on all of a pool."""

    def __init__(
        self, grader: Grader, baselines: Sequence[Row], marks: Callable[[int, PoolName], Marks | None]
    ) -> None:
        self._grader = grader
        self._baselines = baselines
        self._marks = marks

    def of(self, row: Row, names: Collection[str] | None = None) -> list[Row]:
        """Confirmed baselines, or those of these names; none if the row is not confirmed."""
        rivals = [other for other in self._baselines if names is None or other.name in names]
        return [rival for rival in rivals if rival.confirmed is not None and row.confirmed is not None]

    def paired(self, row: Row, rivals: Mapping[str, Row]) -> dict[str, tuple[str, Pair]]:
        """For each objective, the rival's name and the row's difference to it on the same confirm items."""
        draw = Draw(pool="confirm")
        mine, found = self._marks(row.number, draw.pool), {}
        for label, rival in rivals.items():
            theirs = self._marks(rival.number, draw.pool)
            assert mine is not None and theirs is not None, "confirmed values come from marks"
            found[label] = (rival.name, self._grader.differences(mine, theirs, draw)[label])
        return found
