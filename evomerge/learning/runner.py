"""Lessons of models that are no candidates: cut into works, and put together in the order of the items."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from evomerge.items import TEXT
from evomerge.learn.adam import Floats
from evomerge.learning.ground import Ground
from evomerge.learning.references import References
from evomerge.recipe import Coefficients, Recipe
from evomerge.session import Session
from evomerge.trial import Draw, Evaluation, Failure, Learnt, Lesson, Work

SHARD = 8
"""Items that one work learns from, at least."""
SHARDS = 8
"""Works of a lesson, at most: whoever computes them, and however many there are, they are the same."""
NOBODY = -1
"""The number of a model that is no candidate."""


class LessonRunner:
    """Has lessons of items computed, of coefficients in a `frame`; `cost` are forward passes not counted yet."""

    def __init__(self, session: Session, ground: Ground, references: References, say: Callable[[str], None]) -> None:
        self._session = session
        self._ground = ground
        self._references = references
        self._say = say
        self._ids = count(1)
        self.frame: Recipe | None = None
        self.cost = 0
        self.longest = 0.0
        """Seconds that lessons took."""

    def lessons(
        self, vector: Floats, items: Mapping[str, Sequence[int]], lesson: Lesson, *, price: int = 1
    ) -> list[Learnt] | None:
        """What items by task teach of the model with these coefficients (size,), work by work; None if one failed.

        An item costs `price` forward passes.
        """
        return self.lessons_of(*self.recipe(vector), items, lesson, price=price)

    def recipe(self, vector: Floats) -> tuple[Recipe, Coefficients | None]:
        """The recipe with these coefficients, and what its side file holds, if it names one."""
        assert self.frame is not None, "a descent has begun"
        coefficients = self._ground.layout.expanded(vector)
        recipe = self.frame.refined(coefficients)
        return recipe, coefficients if recipe.arrays is not None else None

    def lessons_of(
        self, recipe: Recipe, given: Coefficients | None, items: Mapping[str, Sequence[int]], lesson: Lesson,
        *, price: int = 1,
    ) -> list[Learnt] | None:  # fmt: skip
        """The same of a recipe, `given` what its side file holds."""
        flat = [(task, place) for task, places in items.items() for place in places]
        pieces = min(SHARDS, max(1, len(flat) // SHARD))
        cuts = [flat[len(flat) * i // pieces : len(flat) * (i + 1) // pieces] for i in range(pieces)]
        works = [self._work(recipe, given, cut, lesson) for cut in cuts]
        started, results = time.monotonic(), self._session.lessons(works)
        self.longest = max(self.longest, time.monotonic() - started)
        self.cost += price * len(flat)
        return self._taught(results)

    def _work(
        self, recipe: Recipe, given: Coefficients | None, items: Sequence[tuple[str, int]], lesson: Lesson
    ) -> Work:
        places: dict[str, tuple[int, ...]] = {}
        for task, place in items:
            places[task] = (*places.get(task, ()), place)
        return Work(
            id=-next(self._ids), number=NOBODY, recipe=recipe, draw=Draw(pool="search", places=places),
            purpose="gradient", coefficients=given,
            lesson=lesson.model_copy(update={"targets": self._references.of(places)}),
        )  # fmt: skip

    def _taught(self, results: Sequence[Evaluation]) -> list[Learnt] | None:
        failed = [result.outcome for result in results if isinstance(result.outcome, Failure)]
        if failed:
            self._say(f"a step failed ({failed[0].stage}: {failed[0].reason}); the next one is half as long")
            return None
        learnt = [result.learnt for result in results]
        assert all(each is not None for each in learnt), "whoever was taught says what"
        return [each for each in learnt if each is not None]

    def summed(self, parts: Sequence[Learnt]) -> NDArray[np.float64]:
        """The slopes (size,) of all parts, in the order of the items, whoever computed them."""
        slopes = np.zeros(self._ground.layout.size)
        for part in parts:
            slopes += self._ground.layout.pulled(part.slopes)
        return slopes

    def means(self, parts: Sequence[Learnt] | None) -> dict[str, float]:
        """Mean losses by objective; of a failure they are beyond measure."""
        found = {}
        for label, tasks in self._ground.objectives.items():
            each = [loss for task in tasks for part in parts or () for loss in part.losses.get(task, ())]
            found[label] = float(np.mean(each)) if each else 1e9
        return found


def of_text(parts: Sequence[Learnt]) -> NDArray[np.float64]:
    """Losses of the pieces of text, in the order in which they were asked for."""
    return np.array([loss for part in parts for loss in part.losses.get(TEXT, ())])
