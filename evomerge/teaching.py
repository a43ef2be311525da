"""A worker's lesson: what the items' losses are, and how they change with the coefficients of the recipe."""

import numpy as np
import torch

from evomerge.errors import SpecError
from evomerge.materialize import LiveModel, Slopes
from evomerge.score import Lessons, ScoreFailure
from evomerge.trial import Learnt, Work


class Teacher:
    """Gives lessons to a live model, which the recipe of the work was loaded into."""

    def __init__(self, live: LiveModel, lessons: Lessons | None) -> None:
        """There are no lessons where others score than tasks."""
        self._lessons = lessons
        self._slopes = Slopes(live)

    def learnt(self, work: Work) -> Learnt:
        """What the work's lesson gives; where memory is too small for a batch, in smaller ones from then on.

        Raises:
            SpecError: a task gives no scores, or there is no way back through this model class or this scorer.
            ScoreFailure: a loss or a slope is not finite.
        """
        if self._lessons is None:
            raise SpecError("optimizer: no gradients go back through a scorer of your own; choose optimizer: surrogate")
        while True:
            try:
                return self._taught(work, self._lessons)
            except torch.OutOfMemoryError:
                if not self._lessons.shrink():
                    raise

    def _taught(self, work: Work, lessons: Lessons) -> Learnt:
        lesson = work.lesson
        assert lesson is not None, "only such works come here"
        if lesson.grain is None:
            return Learnt(lessons.losses(work.draw, lesson), {})
        with self._slopes.gathered(work.recipe, work.coefficients, lesson.grain) as gathered:
            losses = lessons.losses(work.draw, lesson)
        slopes = gathered.slopes()
        if not all(np.isfinite(array).all() for array in slopes.values()):
            raise ScoreFailure("some slopes are NaN or infinite: the merged model computes no finite gradients")
        return Learnt(losses, slopes)
