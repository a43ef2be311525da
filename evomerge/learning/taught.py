"""What lessons with ties gave, item by item, as a descent is told it; and what is right of the items."""

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.items import ItemTable
from evomerge.learn.gauss_newton import Answer
from evomerge.learn.losses import Right
from evomerge.learning.start import Wanted
from evomerge.trial import Learnt


def rights_of(table: ItemTable, pools: Mapping[str, Sequence[int]], wanted: Wanted) -> dict[str, dict[int, Right]]:
    """What is right of the search items of these places, or `wanted` of them instead, by task and place.

    A reference answer counts as a whole.
    """
    found = {}
    for task, places in pools.items():
        golds, soft = table.tasks[task].search.golds, wanted.get(task, {})
        found[task] = {place: Right(golds[place], soft.get(place, ()), whole=True) for place in places}
    return found


def answers_of(items: Mapping[str, Sequence[int]], parts: Sequence[Learnt]) -> dict[tuple[str, int], Answer]:
    """Scores and slopes by task and place, of the items that were asked about, in their order."""
    found = {}
    for task, places in items.items():
        rows = [row for part in parts for row in part.scores.get(task, ())]
        slopes = [each for part in parts for each in part.jacobians.get(task, ())]
        start = 0
        for place, row in zip(places, rows, strict=True):
            found[task, place] = Answer(np.array(row), np.array(slopes[start : start + len(row)]))
            start += len(row)
    return found
