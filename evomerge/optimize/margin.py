"""The margin that keeps discrete genes of a CMA-ES from freezing (Hamano et al. 2022, "CMA-ES with Margin")."""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evomerge.space import Gene

Floats = NDArray[np.float64]


class Margin:
    """Sees to it that every discrete gene leaves the level of the mean with probability `alpha`, at least.

    An outer level has one way out: the mean stays so near to the threshold that a tail of `alpha` lies beyond it
    (eq. 13 of the paper). A level between two others is left at both ends, and is left so often wherever in it the
    mean lies if the standard deviation is not below `least` (the paper moves mean and deviation together, eq. 18,
    which asks for no less). Everything here is in the coordinates of the distribution: pycma bends the unit
    cube near its bounds, and `straightened` takes units to these coordinates.
    """

    def __init__(self, genes: Sequence[Gene], alpha: float, straightened: Callable[[Floats], Floats]) -> None:
        count = len(genes)
        self.least = np.zeros(count)
        self._low, self._high = np.full(count, -np.inf), np.full(count, np.inf)
        self._reach = NormalDist().inv_cdf(1 - alpha)
        both = NormalDist().inv_cdf(1 - alpha / 2)
        for index, gene in enumerate(genes):
            if gene.discrete:
                thresholds = straightened(np.array(gene.thresholds))
                self._low[index], self._high[index] = thresholds[0], thresholds[-1]
                self.least[index] = max(np.diff(thresholds), default=0.0) / 2 / both

    def kept(self, mean: Floats, stds: Floats) -> Floats:
        """The mean (genes,) at the distance from the outer thresholds that standard deviations (genes,) allow."""
        return np.clip(mean, self._low - self._reach * stds, self._high + self._reach * stds)
