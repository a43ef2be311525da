"""What models have answered so far on one task: the parents everything, candidates what was drawn for them."""

from dataclasses import dataclass

import numpy as np

from evomerge.estimate.evidence import Floats, Ints

HALF_LIFE = 3.0
"""Generations after which an answer counts half: a population moves on."""


@dataclass(frozen=True)
class History:
    """Answers in the order they came, as parallel arrays (answers,), and the genomes of who gave them.

    `candidates` are rows of `genomes`, `ages` how many draws ago it was. `unit` says whether marks lie in [0, 1].
    """

    items: int
    parents: Floats  # (parents, items)
    genomes: Floats  # (candidates, genes)
    candidates: Ints
    places: Ints
    marks: Floats
    ages: Floats
    unit: bool

    @property
    def recency(self) -> Floats:
        """How much each answer counts (answers,)."""
        return np.asarray(0.5 ** (self.ages / HALF_LIFE))

    def by_item(self, values: Floats) -> Floats:
        """Sums of values (answers,) over the answers to each item (items,)."""
        return np.bincount(self.places, values, minlength=self.items).astype(np.float64)

    def by_candidate(self, values: Floats) -> Floats:
        """Sums of values (answers,) over the answers of each candidate (candidates,)."""
        return np.bincount(self.candidates, values, minlength=len(self.genomes)).astype(np.float64)
