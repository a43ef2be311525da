"""What must not get worse while something else is learned: a loss below a limit, by a price that rises above it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.adam import Floats

PACE = 0.1
"""How much the price rises in a step at twice the limit or above, or falls where nothing is lost."""
HIGHEST = 10.0
"""The highest price."""
DAMPING = 0.5
"""How much of the latest change of the price comes on top of it: without, it goes back and forth."""
BEYOND = 1e6
"""Added to the loss of what is above the limit, so that anything below it is better."""


class Guard:
    """The price of what is guarded, in a sum with the loss that is learned from, and how well it is kept.

    Dual ascent on the augmented Lagrangian of `loss` under `excess <= limit` (Boyd & Vandenberghe 2004, 5.5; Bertsekas
    1982), with slopes of equal length: at a weight of 1 what is guarded pulls as much as what is learned, in whatever
    units; at 0, where it begins and where nothing is lost, not at all. The excess is over the losses (pieces,) of what
    is compared with.
    """

    def __init__(self, limit: float, compared: NDArray[np.float64]) -> None:
        self.limit = limit
        self.compared = compared
        self._price = self._change = 0.0
        self.bold: Floats | None = None
        """Of what was above the limit the best by its loss: it may be drawn back to below."""
        self.bold_loss = np.inf

    @property
    def weight(self) -> float:
        """How much what is guarded pulls, what is learned pulling by 1."""
        return max(0.0, self._price + DAMPING * self._change)

    def tell(self, excess: float) -> None:
        """The excess of a step's pieces: the price follows it."""
        if np.isfinite(excess):
            self._change = float(np.clip((excess - self.limit) / self.limit, -1.0, 1.0))
            self._price = float(np.clip(self._price + PACE * self._change, 0.0, HIGHEST))

    def pull(self, learned: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.float64]:
        """The slopes of what is guarded as they are added to the learned ones."""
        length = float(np.linalg.norm(kept))
        found: NDArray[np.float64] = kept * (self.weight * float(np.linalg.norm(learned)) / length if length else 0.0)
        return found

    def judged(self, loss: float, excess: float, at: Floats) -> float:
        """The loss as it counts: above the limit anything is worse than below it, and the less above the better."""
        if excess <= self.limit:
            return loss
        if loss < self.bold_loss:
            self.bold, self.bold_loss = at.copy(), loss
        return BEYOND + excess

    def worth_drawing_back(self, best_loss: float) -> bool:
        """Whether something above the limit is better than the best below it, of which there is one."""
        return self.bold is not None and best_loss < BEYOND and self.bold_loss < best_loss

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is, to be kept."""
        bold = np.empty(0, dtype=np.float32) if self.bold is None else self.bold
        numbers = np.array([self._price, self._change, self.bold_loss])
        return {"guard_numbers": numbers, "guard_compared": self.compared, "guard_bold": bold}

    @classmethod
    def restored(cls, limit: float, arrays: Mapping[str, NDArray[Any]]) -> "Guard":
        """What was kept."""
        found = cls(limit, np.array(arrays["guard_compared"], dtype=np.float64))
        found._price, found._change, found.bold_loss = map(float, arrays["guard_numbers"])
        bold = np.array(arrays["guard_bold"], dtype=np.float32)
        found.bold = bold if bold.size else None
        return found
