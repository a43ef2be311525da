"""Fronts of points, higher is better in every coordinate."""

from collections.abc import Sequence

import numpy as np

Point = Sequence[float]


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


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume between the points and a reference that is worse than them."""
    import moocore

    return float(moocore.hypervolume(np.asarray(points, dtype=float), ref=np.asarray(reference), maximise=True))


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


def knee(points: Sequence[Point]) -> int:
    """Place of the point that gives up least: the largest smallest share of each coordinate's range."""
    array = np.asarray(points, dtype=float)
    span = np.ptp(array, axis=0)
    shares = (array - array.min(axis=0)) / np.where(span == 0, 1, span)
    return int(np.argmax(shares.min(axis=1)))
