"""For optimisers that keep elites: estimates shrunk to their neighbours', revised as neighbours come in."""

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.estimate.appraise import FEWEST, Appraiser, marked
from evomerge.estimate.evidence import Floats
from evomerge.estimate.ledger import Piece
from evomerge.estimate.ranks import beaten
from evomerge.estimate.smooth import MOST, fit_surface
from evomerge.trial import Observation

REVISED = 64
"""Candidates told before that are told again: more than any population has survivors."""


class ShrinkingObserver:
    """Tells what a Gaussian process over genomes makes of the appraiser's estimates.

    Whoever keeps the best of many noisy results keeps the luckiest. As candidates are added around a lucky one, what
    it is told to be worth comes down; those that may be kept are therefore told again with every generation.
    """

    def __init__(self, appraiser: Appraiser) -> None:
        self._appraiser = appraiser

    def observe(self, numbers: Sequence[int]) -> list[Observation]:
        """The candidates asked about, and the best of all others, which were told before."""
        asked = {observation.number: observation for observation in self._appraiser.observe(numbers)}
        known = {number: kept for number, pieces in self._appraiser.ledger.candidates() if (kept := marked(pieces))}
        if len(known) < FEWEST:
            return list(asked.values())
        points = self._shrunken(known)
        best = {list(known)[place] for place in np.argsort(beaten(points), kind="stable")[:REVISED]}
        worth = {
            number: Observation(number=number, utilities=tuple(map(float, point)), errors=self._errors(number))
            for number, point in zip(known, points, strict=True)
            if number in asked or number in best
        }
        return [observation for number, observation in asked.items() if number not in worth] + list(worth.values())

    def _shrunken(self, known: Mapping[int, Sequence[Piece]]) -> Floats:
        """Utilities (candidates, objectives), each objective smoothed on its own."""
        genomes = np.array([pieces[0].genome for pieces in known.values()])
        told = np.array([self._appraiser.utilities(pieces) for pieces in known.values()])
        errors = np.array([self._errors(number) for number in known])
        columns = []
        for values, error in zip(told.T, errors.T, strict=True):
            kept = np.argsort(-values, kind="stable")[:MOST]
            surface = fit_surface(genomes[kept], values[kept], error[kept] ** 2)
            columns.append(surface(genomes))
        return np.column_stack(columns)

    def _errors(self, number: int) -> tuple[float, ...]:
        values = self._appraiser.values(number)
        assert values is not None, "only candidates with marks are known"
        return tuple(estimate.error for estimate in values.values())
