"""What a search expects of genomes nobody has tried: every item's scores, and of them any loss."""

from dataclasses import dataclass

import numpy as np

from evomerge.learn.features import Features
from evomerge.learn.gp import Kernel, Lessons, Process
from evomerge.learn.losses import Floats, Loss
from evomerge.learn.sheet import Known

FLAT = 1e-9
"""A spread below which there is none."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Readings as the process is told them: without their means (scores,), in units (scores,) of their objective's."""

    means: Floats
    units: Floats

    @classmethod
    def of(cls, known: Known) -> "Scale":
        """Of what was told."""
        there = ~np.isnan(known.readings)
        count = np.maximum(there.sum(0), 1)
        means = np.where(there, known.readings, 0).sum(0) / count
        squares = np.where(there, known.readings - means, 0) ** 2
        owner = np.repeat(known.subjects, known.key.sizes)
        sums, counts = np.bincount(owner, squares.sum(0)), np.bincount(owner, there.sum(0))
        units = np.sqrt(sums / np.maximum(counts, 1))
        return cls(means, np.where(units > FLAT, units, 1.0)[owner])


class Model:
    """A process conditioned on what is known, with losses on what it expects."""

    def __init__(self, features: Features, known: Known, kernel: Kernel | None, steps: int) -> None:
        """`kernel` is an earlier one, which is fitted by so many more steps."""
        self.known = known
        self._features = features
        self._scale = Scale.of(known)
        points = features.of(known.genomes)
        lessons = Lessons(points, (known.readings - self._scale.means) / self._scale.units)
        kernel = kernel or Kernel.prior(features.owners, points.mean(0))
        self.kernel = lessons.fitted(kernel, steps) if steps else kernel
        self._process: Process = lessons.conditioned(self.kernel)

    def losses(self, genomes: Floats, loss: Loss) -> Floats:
        """Expected of genomes (genomes, genes) for each item: (genomes, items)."""
        means = self._process.means(self._features.of(genomes))
        found, _ = self.known.key.losses(means * self._scale.units + self._scale.means, loss)
        return found

    def values(self, genomes: Floats, loss: Loss, shares: Floats) -> Floats:
        """Of genomes, with so much of each item (items,)."""
        found: Floats = self.losses(genomes, loss) @ shares
        return found

    def descent(self, genome: Floats, loss: Loss, shares: Floats) -> tuple[float, Floats]:
        """The value at one genome (genes,), and its slopes by the real genes."""
        point = self._features.of(genome[None])
        readings = self._process.means(point)[0] * self._scale.units + self._scale.means
        lost, slopes = self.known.key.losses(readings, loss)
        weighted = slopes * np.repeat(shares, self.known.key.sizes) * self._scale.units
        return float(lost @ shares), self._process.pulled(point[0], weighted)[self._features.at]
