"""Numbers as they are written in every table, card and page."""

from evomerge.estimate import Pair
from evomerge.results.row import Row, Which
from evomerge.results.table import Results

RIVALS = {"best_parent": "best parent", "best_fixed": "best fixed", "uniform": "uniform"}
"""What a finalist is compared with: a key of `Results.paired`, and its name in a table."""


def amount(value: float, *, exact: bool, sign: str = "") -> str:
    """A value, `0.610`, or an exact one, which is a whole number, `541,920`; `sign` is a format's."""
    return f"{value:{sign},.0f}" if exact else f"{value:{sign}.3f}"


def with_error(pair: Pair | None, sign: str = "", *, exact: bool = False) -> str:
    """A value with its standard error, `0.610 ±0.022`, or an exact one alone; nothing is made of None."""
    if pair is None:
        return ""
    return amount(pair[0], exact=exact, sign=sign) + ("" if exact else f" ±{pair[1]:.3f}")


def number(row: Row, which: Which, label: str) -> str:
    """One of a model's numbers: a confirmed one with its 95 % interval, `0.610 [0.567, 0.653]`, or with its error."""
    pair = row.values(which).get(label)
    if which != "confirmed" or pair is None or row.interval is None or label in row.exact:
        return with_error(pair, exact=label in row.exact)
    low, high = row.interval[label]
    return f"{pair[0]:.3f} [{low:.3f}, {high:.3f}]"


def difference(row: Row, label: str, pair: Pair | None) -> str:
    """What a model's number is above or below a rival's, `+0.052 ±0.014`."""
    return with_error(pair, "+", exact=label in row.exact)


def perplexity(row: Row) -> str:
    """A model's perplexity of plain text, and its change against another model's: `31.2 (+5.8 %)`."""
    if row.drift is None:
        return ""
    change = row.drift.change
    return f"{row.drift.perplexity[0]:.4g}" + (f" ({change[0]:+.1%})".replace("%", " %") if change is not None else "")


def text_meaning(results: Results) -> str:
    """What these are of."""
    text, of = results.store.table.text, results.drifts.of
    against = f", and against {of}" if of is not None else ""
    return f"of {text.source if text is not None else 'no text'}, which no objective measures{against}"
