"""Trade-offs between objectives as places on a line or plane: what coefficients of a front are functions of.

Coefficients of a whole front are `c(w) = c_0 + s_1(w) c_1 + ...` for weights w of the objectives (Dosovitskiy &
Djolonga 2020, You Only Train Once, learn a model of w alike).
"""

from collections.abc import Sequence

import numpy as np

Weights = tuple[float, ...]

REACH = 3.66
"""Log-odds of a trade-off at the end of a front, which is at place 1: a weight of .975."""
SPREAD = 0.49
"""Standard deviation of the places that are drawn."""
BEYOND = 1.08
"""The largest place that is drawn."""
GRID = (-1.0, -0.707, -0.474, -0.2315, 0.0, 0.2315, 0.474, 0.707, 1.0)
"""Places of the nine points of a front of two objectives: weights of .025 .07 .15 .3 .5 .7 .85 .93 .975."""


def weights_at(places: Sequence[float]) -> Weights:
    """Weights of the objectives (objectives,), sum 1, at places (objectives - 1,)."""
    logits = np.append(np.asarray(places, dtype=np.float64) * REACH, 0.0)
    shares = np.exp(logits - logits.max())
    return tuple(float(share) for share in shares / shares.sum())


def places_of(weights: Sequence[float]) -> tuple[float, ...]:
    """Places (objectives - 1,) of a trade-off: log-odds against the last objective, cut off at a front's ends."""
    sure = np.clip(np.asarray(weights, dtype=np.float64), 1e-9, None)
    places = np.log(sure[:-1] / sure[-1]) / REACH
    return tuple(float(place) for place in np.clip(places, -1.0, 1.0))


def drawn(objectives: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Places of a random trade-off between so many objectives; mostly in the middle."""
    return tuple(float(place) for place in np.clip(rng.normal(size=objectives - 1) * SPREAD, -BEYOND, BEYOND))


def points_of(objectives: int) -> list[Weights]:
    """Trade-offs to show a front by: nine of two objectives; of more every corner, every pair, and the middle."""
    if objectives == 1:
        return [(1.0,)]
    if objectives == 2:
        return [weights_at((place,)) for place in GRID]
    corners = np.full((objectives, objectives), 0.05 / max(1, objectives - 1)) + np.eye(objectives) * 0.95
    pairs = [(corners[i] + corners[j]) / 2 for i in range(objectives) for j in range(i)]
    middle = np.full(objectives, 1 / objectives)
    return [tuple(map(float, each / each.sum())) for each in (*corners, *pairs, middle)]
