"""Exams whose answers are smooth, bent functions of genes: at one hidden genome all of them are right."""

from collections.abc import Collection

import numpy as np

from evomerge.learn.losses import Right
from evomerge.learn.sheet import Questions
from evomerge.trial import Observation
from evomerge.values import Genome

BENT = 1.5


class Exam:
    """Items with two to four options each, whose scores are random waves over the genes."""

    def __init__(self, dimension: int, items: int, seed: int = 0, hidden: np.ndarray | None = None) -> None:
        rng = np.random.default_rng((seed, 77))
        self.hidden = rng.uniform(0.1, 0.9, dimension) if hidden is None else hidden
        self.sizes = rng.integers(2, 5, items)
        scores = int(self.sizes.sum())
        self._waves = BENT * rng.standard_normal((24, dimension)), rng.uniform(0, 6, 24)
        self._mix = rng.standard_normal((24, scores)) / np.sqrt(24) * 4
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])
        found = self.scores(tuple(self.hidden), range(items))
        self.golds = [int(np.argmax(row)) for row in found]
        self.questions = Questions(tuple(Right(golds=(gold,)) for gold in self.golds))

    def scores(self, genome: Genome, rows: Collection[int]) -> tuple[tuple[float, ...], ...]:
        directions, phases = self._waves
        flat = np.sin(directions @ np.asarray(genome) + phases) @ self._mix - 9
        return tuple(tuple(flat[self.starts[row] : self.starts[row + 1]].tolist()) for row in rows)

    def accuracy(self, genome: Genome, rows: Collection[int]) -> float:
        found = self.scores(genome, rows)
        return float(np.mean([np.argmax(each) == self.golds[row] for row, each in zip(rows, found, strict=True)]))

    def observation(self, number: int, genome: Genome, rows: Collection[int]) -> Observation:
        """As a study tells it, of one task `t`."""
        scores = {"t": self.scores(genome, rows)}
        utilities = (self.accuracy(genome, rows),)
        return Observation(number=number, genome=genome, utilities=utilities, rows={"t": tuple(rows)}, scores=scores)
