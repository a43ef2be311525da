"""Models of a learned front between its points: its coefficients are linear in the place of a trade-off."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from evomerge.errors import SpecError
from evomerge.learn.tradeoff import places_of
from evomerge.recipe import Coefficients, Grain, Recipe
from evomerge.results.curves import curves, place_of
from evomerge.results.table import Results

WORD = "tradeoff:"


def between(results: Results, pick: str) -> tuple[Recipe, Coefficients | None]:
    """The recipe of `tradeoff:W`, W being the weight of the first of two objectives, and what its side file holds.

    Linear between the two nearest points of the front learned last, by place: exact but where a bound cuts a weight off
    in between.

    Raises:
        SpecError: there is no such weight, or the run has learned no front of two objectives.
    """
    weight = _weight(pick)
    known = curves(results)
    if not known:
        raise SpecError(f"{pick}: this run has learned no front of two objectives; pick number:N, or another word")
    points = [(place_of(row), row.number) for row in known[-1]]
    place = float(np.clip(places_of((weight, 1 - weight))[0], points[0][0], points[-1][0]))
    right = min(max(1, bisect_left([at for at, _ in points], place)), len(points) - 1)
    (begin, one), (end, other) = points[right - 1], points[right]
    share = round((place - begin) / (end - begin), 9)  # At a point it is that point.
    return _mixed([results.recipe(number) for number in (one, other)], (1 - share, share))


def _weight(pick: str) -> float:
    text = pick.removeprefix(WORD)
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise SpecError(f"{pick}: {text!r} is no weight of the first objective; give a number from 0 to 1")
    return weight


def _mixed(recipes: Sequence[Recipe], shares: Sequence[float]) -> tuple[Recipe, Coefficients | None]:
    first = recipes[0]
    grain: Grain = "tensor"
    if first.arrays is None:
        rows = [{name: np.array(weights)[:, None] for name, weights in recipe.tensors.items()} for recipe in recipes]
    else:
        found = [Coefficients.read(recipe.arrays) for recipe in recipes if recipe.arrays is not None]
        rows, grain = [dict(each.arrays) for each in found], first.arrays.grain
    mixed = {
        name: sum(np.float64(share) * row[name] for share, row in zip(shares, rows, strict=True)) for name in rows[0]
    }
    coefficients = Coefficients(grain, {name: np.asarray(array, dtype=np.float32) for name, array in mixed.items()})
    return first.refined(coefficients), None if first.arrays is None else coefficients
