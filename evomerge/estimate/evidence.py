"""What is known of a model on one task, and what an estimator makes of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.95
"""Of every interval."""
NO_DIAGNOSTICS: Mapping[str, float] = {}


@dataclass(frozen=True)
class Evidence:
    """A model's marks on drawn items of one task, beside what is known of all its items.

    What is asked for is `weights @ marks` over the whole pool. `places` are distinct and say which items were drawn,
    `probabilities` how likely each was (1: certain). `predicted` is what a response model expected of this model
    before the draw, `parents` what the parents answered; `masses` are the weights of anchors, which are not random.
    """

    weights: Floats  # (items,), sums to 1
    places: Ints  # (drawn,)
    marks: Floats  # (drawn,)
    probabilities: Floats  # (drawn,)
    predicted: Floats | None = None  # (items,)
    parents: Floats = field(default_factory=lambda: np.empty((0, 0)))  # (parents, items)
    masses: Floats | None = None  # (drawn,)

    @property
    def shares(self) -> Floats:
        """What each drawn mark counts in their mean (drawn,): its item's weight over its probability; they sum to 1."""
        counts = self.weights[self.places] / self.probabilities
        return np.asarray(counts / counts.sum())

    @property
    def whole(self) -> bool:
        """Whether every item was drawn, so that nothing is left to estimate."""
        return len(self.places) == len(self.weights)


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error, a 95 % interval and how many items drawn at random would tell as much."""

    value: float
    error: float
    low: float
    high: float
    effective: float
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def estimated(
    value: float, error: float, freedom: float, *, effective: float, diagnostics: Mapping[str, float] = NO_DIAGNOSTICS
) -> Estimate:
    """An estimate with the interval of Student's t; no freedom left means a normal one."""
    return Estimate(value, error, *interval(value, error, freedom), effective, diagnostics)


def exact(value: float) -> Estimate:
    """What is known without measuring any items, as a model's size is."""
    return Estimate(value, 0.0, value, value, math.inf)


def interval(value: float, error: float, freedom: float) -> tuple[float, float]:
    """The 95 % interval of Student's t; no freedom left means a normal one."""
    half = error * quantile(freedom)
    return value - half, value + half


def share_interval(value: float, error: float, freedom: float) -> tuple[float, float]:
    """The 95 % interval of a mean of marks in [0, 1], which stays there (Wilson 1927).

    It is that of as many independent marks as `error` stands for; of marks that are all alike, of as many as there are
    degrees of freedom and one.
    """
    spread = value * (1 - value)
    count = spread / error**2 if error > 0 and spread > 0 else freedom + 1
    reach = quantile(freedom)
    middle = (value + reach**2 / (2 * count)) / (1 + reach**2 / count)
    half = reach / (1 + reach**2 / count) * math.sqrt(spread / count + reach**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def averaged(parts: Sequence[Estimate], shares: Sequence[float]) -> Estimate:
    """The mean of independent estimates by shares that add up to 1."""
    if len(parts) == 1:
        return parts[0]
    value = sum(share * part.value for share, part in zip(shares, parts, strict=True))
    error = math.sqrt(sum((share * part.error) ** 2 for share, part in zip(shares, parts, strict=True)))
    half = math.sqrt(sum((share * (part.high - part.value)) ** 2 for share, part in zip(shares, parts, strict=True)))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Estimate(value, error, value - half, value + half, sum(part.effective for part in parts), notes=notes)


@lru_cache
def quantile(freedom: float) -> float:
    """How many standard errors a 95 % interval reaches to either side."""
    upper = (1 + LEVEL) / 2
    return float(special.stdtrit(freedom, upper) if freedom > 0 else special.ndtri(upper))


def in_unit(marks: Floats) -> bool:
    """Whether all marks lie in [0, 1]."""
    return not marks.size or bool(marks.min() >= 0 and marks.max() <= 1)
