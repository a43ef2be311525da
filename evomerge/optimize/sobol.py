"""Scrambled Sobol points (Owen 1998): a search that learns nothing, to compare others with."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from evomerge.optimize.checks import Elite, checked
from evomerge.trial import Observation
from evomerge.values import Genome


class Sobol:
    """An even cover of the unit cube."""

    generation = None

    def __init__(self, dimension: int, objectives: int, *, seed: int) -> None:
        self._dimension = dimension
        self._objectives = objectives
        self._points = qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed))
        self._elite = Elite()

    def ask(self, count: int) -> list[Genome]:
        """The next points of the sequence."""
        return [tuple(float(x) for x in self._points.random(1)[0]) for _ in range(count)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results, kept for the mean of the best."""
        self._elite.add(checked(observations, self._dimension, self._objectives))

    def recommend(self) -> list[Genome]:
        """The mean of the top 8, for one objective."""
        return self._elite.mean() if self._objectives == 1 else []
