"""Genes as a kernel sees them: numbers between which there is a distance."""

import math
from collections.abc import Sequence

import numpy as np

from evomerge.learn.losses import Floats
from evomerge.space import Gene


class Features:
    """One of each gene; of one with several categories one for each, so that all are equally far from one another.

    `owners` (features,) says whose gene a feature is, `real` which genes are a continuum, `at` which features are
    theirs.
    """

    def __init__(self, genes: Sequence[Gene]) -> None:
        widths = [_width(gene) for gene in genes]
        self.genes = genes
        self.owners = np.repeat(np.arange(len(genes)), widths)
        self.real = np.array([index for index, gene in enumerate(genes) if not gene.discrete], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        self.at = self._first[self.real]

    def of(self, genomes: Floats) -> Floats:
        """Features (genomes, features) of points of the unit cube (genomes, genes), each at a level of its own."""
        found = np.zeros((len(genomes), len(self.owners)))
        for index, gene in enumerate(self.genes):
            first, column = self._first[index], genomes[:, index]
            if _width(gene) == 1:
                found[:, first] = column
            else:
                levels = np.rint(column * (gene.levels or 1)).astype(np.int64)
                found[np.arange(len(genomes)), first + levels] = math.sqrt(0.5)  # So that others are at distance 1.
        return found


def _width(gene: Gene) -> int:
    return gene.levels + 1 if not gene.ordered and gene.levels is not None and gene.levels > 1 else 1
