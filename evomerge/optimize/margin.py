"""The margin that keeps discrete genes of a CMA-ES from freezing (Hamano et al. 2022, "CMA-ES with Margin")."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from evomerge.optimize.coordinates import Coordinates, Floats


class Margin:
    """Sees to it that every discrete gene leaves the level of the mean with probability `alpha`, about or more.

    An outer level has one way out: the mean stays so near to the threshold that a tail of `alpha` lies beyond it
    as in the paper. A level between two others is left at both ends, and is left so often wherever in it the mean
    lies if the standard deviation is not below `least` (the paper moves mean and deviation together). A category is
    left for each of the others, whose coordinates are kept within reach of the largest; all are shifted to the
    middle, since only their differences count. Everything here is in the coordinates of the distribution: pycma bends
    the unit cube near its bounds and mirrors it there, and `straightened` takes units to these coordinates.
    """

    def __init__(self, coordinates: Coordinates, alpha: float, straightened: Callable[[Floats], Floats]) -> None:
        count = len(coordinates.real)
        self.least = np.zeros(count)
        self._low, self._high = np.full(count, -np.inf), np.full(count, np.inf)
        self._lowest, self._highest = np.full(count, -np.inf), np.full(count, np.inf)
        self._categories: list[slice] = []
        self._reach = NormalDist().inv_cdf(1 - alpha)
        both = NormalDist().inv_cdf(1 - alpha / 2)
        for gene, span in zip(coordinates.genes, coordinates.spans, strict=True):
            if span.stop - span.start > 1:
                self._categories.append(span)
            elif gene.discrete:
                lowest, *thresholds, highest = straightened(np.array([0.0, *gene.thresholds, 1.0]))
                self._lowest[span], self._highest[span] = lowest, highest
                self._low[span], self._high[span] = thresholds[0], thresholds[-1]
                self.least[span] = max(np.diff(thresholds), default=0.0) / 2 / both

    def kept(self, mean: Floats, stds: Floats) -> Floats:
        """The mean (coordinates,), moved to where these standard deviations (coordinates,) still reach other levels."""
        low = np.maximum(self._low - self._reach * stds, self._lowest)
        kept = np.clip(mean, low, np.minimum(self._high + self._reach * stds, self._highest))
        for span in self._categories:
            first = span.start + int(np.argmax(kept[span]))
            kept[span] = np.maximum(kept[span], kept[first] - self._reach * np.hypot(stds[span], stds[first]))
            kept[span] += 0.5 - (kept[span].max() + kept[span].min()) / 2
        return kept
