"""Where a search over a surrogate may go next for each trade-off of objectives, and what it learns from a step."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.losses import SHARPENING, Loss

RADIUS, WIDEST, NARROWEST = 0.2, 0.4, 0.02
"""How far a proposal may be from the best point, gene by gene, in the unit cube: at first, at most, at least."""
ANEW = 0.067
"""The radius is at least this where the loss is another one."""
SETTLED = 0.01
"""The share of its loss that a step gains when it is time for a sharper one."""

Floats = NDArray[np.float64]


@dataclass
class Region:
    """Where proposals for one trade-off (objectives,) may lie, and which loss of SHARPENING they are to make small."""

    tradeoff: Floats
    radius: float = RADIUS
    sharpness: int = 0

    @property
    def loss(self) -> Loss:
        """The one to make small."""
        return SHARPENING[self.sharpness]

    def learn(self, gain: float, hoped: float, before: float) -> None:
        """Take in what a step has gained, what was hoped of it and what the loss was."""
        if gain < SETTLED * abs(before) and self.sharpness + 1 < len(SHARPENING):
            self.sharpness += 1
            self.radius = max(self.radius, ANEW)
        elif gain > 0.5 * hoped:
            self.radius = min(self.radius * 1.25, WIDEST)
        elif gain <= 0.1 * hoped:
            self.shrink()

    def shrink(self) -> None:
        """A step was too long."""
        self.radius = max(self.radius * 0.8, NARROWEST)


@dataclass(frozen=True, eq=False)
class Hope:
    """A proposal from which a region will learn: where it began, what the model said of that point and of this one."""

    region: Region
    sharpness: int
    begun: Floats
    before: float
    after: float


def tradeoffs(objectives: int) -> list[tuple[float, ...]]:
    """Weights of objectives: each one mostly, every two of them alike, and with two also what lies between."""
    if objectives == 1:
        return [(1.0,)]
    if objectives == 2:
        return [(1 - share, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    rest = 0.1 / (objectives - 1)
    ends = [tuple(0.9 if each == one else rest for each in range(objectives)) for one in range(objectives)]
    pairs = list(combinations(range(objectives), 2))
    between = [tuple(0.5 if each in pair else 0.0 for each in range(objectives)) for pair in pairs]
    return [*ends, *between, (1 / objectives,) * objectives]
