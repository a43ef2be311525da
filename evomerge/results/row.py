"""One model of a run and what it scored."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from evomerge.estimate import Pair
from evomerge.results.drift import Drift
from evomerge.trial import Failure
from evomerge.values import Value

Which: TypeAlias = Literal["search", "shrunken", "confirmed", "report"]
"""Which of a model's numbers."""


class Row(Value):
    """A model and what it scored: value and standard error of each objective, None where it was not scored.

    `search` is the search's own estimate, which flatters the best of many; `shrunken` is what is left of it in the
    light of the candidate's neighbours; `confirmed` was measured on items that the search never saw, `interval` is its
    95 % interval. `items` counts the search items behind the first two. `exact` names the objectives that are costs.
    `tradeoff` are the weights of the objectives that a learned one was learned for.
    `drift` is how well it foretells plain text.
    """

    number: int
    name: str
    origin: str
    recipe: str
    items: int = 0
    search: dict[str, Pair] | None = None
    shrunken: dict[str, Pair] | None = None
    confirmed: dict[str, Pair] | None = None
    interval: dict[str, tuple[float, float]] | None = None
    report: dict[str, Pair] | None = None
    exact: tuple[str, ...] = ()
    drift: Drift | None = None
    failure: Failure | None = None
    tradeoff: dict[str, float] | None = None

    def values(self, which: Which) -> Mapping[str, Pair]:
        """Its numbers of one kind by objective; none where it has none."""
        kinds = {"search": self.search, "shrunken": self.shrunken, "confirmed": self.confirmed, "report": self.report}
        return kinds[which] or {}

    def plain(self, keys: Sequence[str]) -> dict[str, Any]:
        """Some of its fields, and its report numbers and its trade-off if it has any, for JSON."""
        plain = self.model_dump(mode="json")
        found = {key: plain[key] if plain[key] is not None else {} for key in keys}
        return found | {key: plain[key] for key in ("report", "tradeoff") if plain[key] is not None}


def optimism(rows: Sequence[Row], which: Which, signs: Mapping[str, int]) -> dict[str, float]:
    """By how much a number was better than the confirmed one, on average over the rows that have both.

    `signs` says of each objective whether higher is better (1) or lower (-1); one that no row has is left out.
    """
    found = {}
    for label, sign in signs.items():
        gaps = [
            sign * (row.values(which)[label][0] - row.confirmed[label][0])
            for row in rows
            if row.confirmed is not None and label in row.values(which)
        ]
        if gaps:
            found[label] = sum(gaps) / len(gaps)
    return found
