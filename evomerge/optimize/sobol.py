"""Scrambled Sobol points (Owen 1998): a search that learns nothing, to compare others with."""

from collections.abc import Sequence

import numpy as np

from evomerge.optimize.checks import Elite, checked
from evomerge.optimize.kinds import drawn
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome


class Sobol:
    """An even cover of the unit cube, and of the levels of discrete genes."""

    generation = None

    def __init__(self, genes: Sequence[Gene], objectives: int, *, seed: int) -> None:
        from scipy.stats import qmc  # Half a second, which whoever only reads a run need not wait.

        self._genes = genes
        self._objectives = objectives
        self._points = qmc.Sobol(len(genes), scramble=True, rng=np.random.default_rng(seed))
        self._elite = Elite(genes)

    def ask(self, count: int) -> list[Genome]:
        """The next points of the sequence."""
        return [drawn(self._genes, self._points.random(1)[0]) for _ in range(count)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results, kept for the middle of the best."""
        self._elite.add(checked(observations, len(self._genes), self._objectives))

    def recommend(self) -> list[Genome]:
        """The middle of the top 8, for one objective."""
        return self._elite.middle() if self._objectives == 1 else []
