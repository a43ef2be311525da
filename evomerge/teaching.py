"""A worker's lesson: what the items' losses or scores are, and how they change with the coefficients of the recipe."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from evomerge.errors import SpecError
from evomerge.materialize import Jacobians, LiveModel, Slopes
from evomerge.score import Lessons, Request, ScoreFailure
from evomerge.trial import Learnt, Work

TRIED = 3
"""Requests of which it is seen, once, that this model class keeps rows apart."""
CLOSE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""How far, in shares of the largest one, derivatives may be from those that go through gradients of weights."""


class Teacher:
    """Gives lessons to a live model, which the recipe of the work was loaded into."""

    def __init__(self, live: LiveModel, lessons: Lessons | None) -> None:
        """There are no lessons where others score than tasks."""
        self._live = live
        self._lessons = lessons
        self._slopes = Slopes(live)
        self._jacobians = Jacobians(live, self._slopes)
        self._keeps_rows: bool | None = None

    def learnt(self, work: Work) -> Learnt:
        """What the work's lesson gives; where memory is too small for a batch, in smaller ones from then on.

        Raises:
            SpecError: a task gives no scores, or there is no way back through this model class or this scorer.
            ScoreFailure: a loss, a score or a slope is not finite.
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
        if lesson.ties is not None:
            scores, derivatives = lessons.scored(work.draw, partial(self._by_request, work, lesson.ties))
            jacobians = {task: each.numpy().astype(np.float32) for task, each in derivatives.items()}
            return Learnt({}, {}, scores, jacobians)
        if lesson.grain is None:
            return Learnt(lessons.losses(work.draw, lesson), {})
        with self._slopes.gathered(work.recipe, work.coefficients, lesson.grain) as gathered:
            losses = lessons.losses(work.draw, lesson)
        slopes = gathered.slopes()
        if not all(np.isfinite(array).all() for array in slopes.values()):
            raise ScoreFailure("some slopes are NaN or infinite: the merged model computes no finite gradients")
        return Learnt(losses, slopes)

    # ---- items one by one

    def _by_request(
        self, work: Work, ties: Mapping[str, Sequence[int]], requests: Sequence[Request]
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihoods (requests,), and their derivatives by the numbers that `ties` names (requests, numbers)."""
        if self._keeps_rows is None:
            self._keeps_rows = self._tried(work, ties, requests[:TRIED])
        return (self._apart if self._keeps_rows is False else self._together)(work, ties, requests)

    def _together(
        self, work: Work, ties: Mapping[str, Sequence[int]], requests: Sequence[Request]
    ) -> tuple[Tensor, Tensor]:
        """All in rows of the same passes."""
        lessons = self._has_lessons
        with self._jacobians.followed(work.recipe, work.coefficients, ties) as followed:
            scores = lessons.apart(requests).back(lessons.model, followed.begin)
        return scores, followed.found()

    def _apart(
        self, work: Work, ties: Mapping[str, Sequence[int]], requests: Sequence[Request]
    ) -> tuple[Tensor, Tensor]:
        """One after the other, through gradients of weights: slow, and right whatever the model does with rows."""
        lessons, numbers = self._has_lessons, 1 + max(max(each) for each in ties.values())
        scores, found = [], torch.zeros(len(requests), numbers, dtype=torch.float64)
        for row, request in zip(found, requests, strict=True):
            with self._slopes.gathered(work.recipe, work.coefficients, "tensor") as gathered, torch.enable_grad():
                score = lessons.apart([request]).differentiable(lessons.model)
                if score.requires_grad:
                    torch.autograd.backward(score.sum())
            scores.append(score.detach())
            for name, slope in gathered.slopes().items():
                if name in ties:
                    row.index_add_(0, torch.tensor(ties[name]), torch.from_numpy(slope[:, 0]).double())
        return torch.cat(scores), found

    def _tried(self, work: Work, ties: Mapping[str, Sequence[int]], requests: Sequence[Request]) -> bool | None:
        """Whether this model class keeps rows apart, so that both ways come to the same; None if this model shows not.

        Raises:
            ScoreFailure: the model computes no finite numbers.
        """
        scores, wanted = self._apart(work, ties, requests)
        if not (torch.isfinite(scores).all() and torch.isfinite(wanted).all()):
            return None
        name = type(self._live.model).__name__
        try:
            _, found = self._together(work, ties, requests)
            far = float((found - wanted).abs().max())
            same = far <= CLOSE[str(self._live.model.dtype).removeprefix("torch.")] * float(wanted.abs().max())
        except (ScoreFailure, torch.OutOfMemoryError):
            raise
        except Exception:  # noqa: BLE001  A model class may do anything with what its modules give.
            same = False
        if not same:
            self._live.notes.add(
                f"slopes of items are found one by one, which is slower: {name} does not keep rows apart"
            )
        return same

    @property
    def _has_lessons(self) -> Lessons:
        assert self._lessons is not None, "whoever has none gives no lesson"
        return self._lessons
