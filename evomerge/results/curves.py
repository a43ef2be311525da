"""Learned fronts as the curves they are: their points in the order of trade-offs."""

from evomerge.learn.tradeoff import places_of
from evomerge.results.row import Row
from evomerge.results.table import Results


def curves(results: Results) -> list[list[Row]]:
    """The points of each learned front of two objectives, from all weight on the second to all on the first.

    A later one was learned with a larger budget.
    """
    found: list[list[Row]] = []
    last = float("inf")
    for _, row in sorted(results.rows.items()):
        if row.tradeoff is None or len(row.tradeoff) != 2 or list(row.tradeoff) != results.objectives[:2]:
            continue
        if place_of(row) <= last:
            found.append([])
        found[-1].append(row)
        last = place_of(row)
    return [curve for curve in found if len(curve) > 1]


def place_of(row: Row) -> float:
    """Where on a front of two objectives a learned candidate is, from -1 to 1."""
    assert row.tradeoff is not None, "it was learned"
    return places_of(list(row.tradeoff.values()))[0]
