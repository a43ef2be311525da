"""Numbers as they are written in every table, card and page."""

from evomerge.estimate import Pair
from evomerge.results.row import Row, Which

RIVALS = {"best_parent": "best parent", "best_fixed": "best fixed", "uniform": "uniform"}
"""What a finalist is compared with: a key of `Results.paired`, and its name in a table."""


def with_error(pair: Pair | None, sign: str = "") -> str:
    """A value with its standard error, `0.610 ±0.022`; `sign` is a format's, nothing is made of None."""
    return "" if pair is None else f"{pair[0]:{sign}.3f} ±{pair[1]:.3f}"


def number(row: Row, which: Which, label: str) -> str:
    """One of a model's numbers: a confirmed one with its 95 % interval, `0.610 [0.567, 0.653]`, or with its error."""
    pair = row.values(which).get(label)
    if which != "confirmed" or pair is None or row.interval is None:
        return with_error(pair)
    low, high = row.interval[label]
    return f"{pair[0]:.3f} [{low:.3f}, {high:.3f}]"
