"""Fronts of points, higher is better in every coordinate."""

from collections.abc import Sequence

import numpy as np

Point = Sequence[float]
MOST_COST = 2.0
"""Parents that a model may cost as much as, and still add to a hypervolume."""


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Places of the points that no other beats in one coordinate without losing in another; equal points once."""
    array = np.asarray(points, dtype=float)
    kept = []
    for i, point in enumerate(array):
        no_worse = (array >= point).all(axis=1)
        better = no_worse & (array > point).any(axis=1)
        twin = bool(np.flatnonzero((array == point).all(axis=1))[0] < i)
        if not better.any() and not twin:
            kept.append(i)
    return kept


def worst(points: Sequence[Point], costs: Sequence[bool]) -> Point:
    """Where hypervolumes are measured from: the worst of the points in each coordinate.

    In a cost, told as minus its share of a parent's, it is twice a parent. All points often cost the same, and from
    the worst of those no model would have any volume.
    """
    columns = zip(*points, strict=True)
    return [-MOST_COST if cost else min(column) for column, cost in zip(columns, costs, strict=True)]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume between the points and a reference; points that are not better than it in everything add none.

    In one dimension it is a length.
    """
    if len(reference) == 1:
        return max(0.0, *(point[0] - reference[0] for point in points))
    import moocore

    return float(moocore.hypervolume(np.asarray(points, dtype=float), ref=np.asarray(reference), maximise=True))


def volumes(front: Sequence[Point], fixed: Sequence[Point], costs: Sequence[bool]) -> dict[str, float]:
    """Hypervolumes of a front and of fixed points, from the worst fixed value of each coordinate.

    With a cost from the worst of both: smaller models may be worse than all that is fixed, and still be wanted.
    """
    reference = worst([*fixed, *(front if any(costs) else ())], costs)
    return {"front": hypervolume(front, reference), "fixed": hypervolume(fixed, reference)}


def crowded_out(points: Sequence[Point], most: int) -> list[int]:
    """Places of at most `most` points of a front: those without which the least hypervolume is lost go first."""
    import moocore

    kept = list(range(len(points)))
    array = np.asarray(points, dtype=float)
    while len(kept) > most:
        here = array[kept]
        reference = here.min(axis=0) - 0.1 * (np.ptp(here, axis=0) + 1e-9)
        shares = moocore.hv_contributions(here, ref=reference, maximise=True)
        kept.pop(int(np.argmin(shares)))
    return kept


def best_fronts(points: Sequence[Point], fewest: int, most: int) -> list[int]:
    """Places of the front, of at most `most` points, and of those behind it until there are `fewest`."""
    chosen: list[int] = []
    rest = list(range(len(points)))
    while rest and (not chosen or len(chosen) < fewest):
        front = [rest[i] for i in non_dominated([points[i] for i in rest])]
        room = fewest - len(chosen) if chosen else most
        chosen += [front[i] for i in crowded_out([points[i] for i in front], room)]
        rest = [i for i in rest if i not in front]
    return chosen


def knee(points: Sequence[Point]) -> int:
    """Place of the point that gives up least: the largest smallest share of each coordinate's range.

    Where a coordinate has no range, no point gives up anything.
    """
    array = np.asarray(points, dtype=float)
    span = np.ptp(array, axis=0)
    shares = np.where(span == 0, 1.0, (array - array.min(axis=0)) / np.where(span == 0, 1, span))
    return int(np.argmax(shares.min(axis=1)))
