"""Which items to draw, and how likely each is to be drawn: the probabilities are what makes an estimate unbiased."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.estimate.evidence import Floats, Ints

FLOOR = 0.01
"""Added to the expected variance of a mark: no item is so sure that it is hardly ever looked at."""


@dataclass(frozen=True)
class Sample:
    """Drawn items: distinct places, the probability of each to be in, and weights where the choice was no chance."""

    places: Ints  # (drawn,)
    probabilities: Floats  # (drawn,)
    masses: Floats | None = None  # (drawn,)


def simple_random(items: int, count: int, rng: np.random.Generator) -> Sample:
    """`count` of `items`, each as likely as any other."""
    return proportional(np.ones(items), count, rng)


def stratified(strata: Sequence[str], count: int, rng: np.random.Generator) -> Sample:
    """From every stratum its share of `count`, up to one; each item as likely as any other.

    A systematic sample along the strata (Madow 1949), in random order within them.
    """
    _, index = np.unique(np.asarray(strata), return_inverse=True)
    order = np.lexsort((rng.random(len(index)), index))
    return _systematic(inclusion(np.ones(len(index)), count), order, rng)


def proportional(sizes: Floats, count: int, rng: np.random.Generator) -> Sample:
    """`count` items with probabilities in proportion to `sizes` (items,), those too large for that with certainty.

    A systematic sample in random order: of fixed size, with exactly these probabilities.
    """
    return _systematic(inclusion(sizes, count), rng.permutation(len(sizes)), rng)


def uncertainty(weights: Floats, predicted: Floats) -> Floats:
    """Sizes for `proportional`: `w sqrt(f (1 - f) + floor)`, the least variance of a difference estimate (Neyman)."""
    sure = np.clip(predicted, 0.0, 1.0)
    return np.asarray(weights * np.sqrt(sure * (1 - sure) + FLOOR))


def inclusion(sizes: Floats, count: int) -> Floats:
    """Probabilities (items,) in proportion to `sizes`, at most 1, that add up to `count`."""
    if count >= len(sizes):
        return np.ones(len(sizes))
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        free = np.where(certain, 0.0, sizes)
        probabilities = np.where(certain, 1.0, free * (count - certain.sum()) / free.sum())
        over = ~certain & (probabilities >= 1)
        if not over.any():
            return probabilities
        certain |= over


def _systematic(probabilities: Floats, order: Ints, rng: np.random.Generator) -> Sample:
    """Every item in whose stretch of the cumulated probabilities, taken in this order, a comb of step 1 has a tooth."""
    ends = np.cumsum(probabilities[order])
    count = round(float(ends[-1]))
    # Rounding must not lose the last tooth, nor an item that is certain.
    places = np.searchsorted(ends, np.arange(count) + rng.random() * (1 - 1e-9), side="right")
    drawn = order[np.minimum(places, len(order) - 1)]
    shuffled = rng.permutation(np.unique(drawn))  # So that the first few are a random part of them.
    return Sample(shuffled, probabilities[shuffled])
