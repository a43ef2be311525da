"""Adam (Kingma & Ba 2015) over merge coefficients, with averaged iterates."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

BETAS = (0.9, 0.97)
"""Decay of the mean and of the square: runs are of tens of steps, in which .999 would never forget the first."""
TINY = 1e-12


def clipped(vector: Floats, bounds: tuple[float, float]) -> Floats:
    """The vector with what is beyond the bounds at them."""
    return np.clip(vector, np.float32(bounds[0]), np.float32(bounds[1]))


def _zeros() -> Floats:
    return np.zeros(0, dtype=np.float32)


@dataclass
class Adam:
    """Iterates `x` (coefficients,), their average, and the moments of the slopes; all float32, so that a file restores
    them bit for bit.

    The average moves towards each iterate by at least the share `forgets`.
    """

    x: Floats
    average: Floats = field(default_factory=_zeros)
    mean: Floats = field(default_factory=_zeros)
    square: Floats = field(default_factory=_zeros)
    steps: int = 0
    forgets: float = 0.12

    def __post_init__(self) -> None:
        """Begin with the average at the first iterate, and without memory."""
        if not self.average.size:
            self.average, self.mean, self.square = self.x.copy(), np.zeros_like(self.x), np.zeros_like(self.x)

    def step(self, slopes: Floats, rate: float, bounds: tuple[float, float] | None) -> None:
        """Go down the `slopes` (coefficients,) by about `rate` in each, and stay within bounds, if there are any."""
        self.steps += 1
        for moment, beta, new in zip((self.mean, self.square), BETAS, (slopes, slopes * slopes), strict=True):
            moment *= np.float32(beta)
            moment += np.float32(1 - beta) * new
        mean, square = (m / np.float32(1 - b**self.steps) for m, b in zip((self.mean, self.square), BETAS, strict=True))
        self.x = self.x - np.float32(rate) * mean / (np.sqrt(square) + np.float32(TINY))
        if bounds is not None:
            self.x = clipped(self.x, bounds)
        self.average = self.average + np.float32(max(self.forgets, 1 / self.steps)) * (self.x - self.average)
