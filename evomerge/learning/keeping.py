"""Text whose perplexity is kept while something else is learned, put to the models beside its items."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.items import TEXT
from evomerge.learn.adam import Floats
from evomerge.learn.course import SLOPE
from evomerge.learn.descent import Descent
from evomerge.learn.gauss_newton import GaussNewton
from evomerge.learn.guard import Guard
from evomerge.learning.ground import BESIDE, BISECTIONS, Kept
from evomerge.learning.runner import LessonRunner, of_text
from evomerge.recipe import Grain
from evomerge.trial import Learnt, Lesson


class Keeping:
    """A guard, and the text that it is about."""

    def __init__(self, kept: Kept, guard: Guard, runner: LessonRunner) -> None:
        self._kept = kept
        self._runner = runner
        self.guard = guard

    @classmethod
    def begun(cls, kept: Kept, runner: LessonRunner) -> "Keeping | None":
        """With what the text may lose known; None if that is not to be known."""
        places = sorted((*kept.pool, *kept.held))
        parts = runner.lessons_of(kept.of, None, {TEXT: places}, Lesson(weights={}))
        if parts is None:
            return None
        compared = np.full(max(places) + 1, np.nan)
        compared[places] = of_text(parts)
        return cls(kept, Guard(kept.limit, compared), runner)

    @classmethod
    def restored(cls, kept: Kept, arrays: Mapping[str, NDArray[Any]], runner: LessonRunner) -> "Keeping":
        """As it was kept."""
        return cls(kept, Guard.restored(kept.limit, arrays), runner)

    @property
    def held(self) -> dict[str, Sequence[int]]:
        """Pieces that judge, by place."""
        return {TEXT: self._kept.held}

    def slopes(self, vector: Floats, step: int, items: int, grain: Grain) -> NDArray[np.float64] | None:
        """Slopes of the text's loss beside those of so many items, 0 where it has no price; None if they failed."""
        guard, pool = self.guard, self._kept.pool
        count = min(max(1, items // BESIDE), len(pool))
        text = [pool[(step * count + i) % len(pool)] for i in range(count)]
        priced = guard.weight > 0
        lesson = Lesson(grain=grain if priced else None, weights={TEXT: 1 / count})
        parts = self._runner.lessons(vector, {TEXT: text}, lesson, price=SLOPE if priced else 1)
        if parts is None:
            return None
        found = self._runner.summed(parts if priced else ())
        guard.tell(float(np.mean(of_text(parts) - guard.compared[text])))
        return found

    def excess(self, parts: Sequence[Learnt] | None) -> float:
        """By how much the text is foretold worse than by what it is compared with, in nats a token."""
        if parts is None:
            return np.inf
        return float(np.mean(of_text(parts) - self.guard.compared[list(self._kept.held)]))

    def drawn_back(self, descent: Descent | GaussNewton) -> Floats | None:
        """From the best below the limit as far towards what is better above it as the guard holds; None if nowhere."""
        guard, best = self.guard, descent.best.copy()
        if guard.bold is None or not guard.worth_drawing_back(descent.best_loss):
            return None
        bold, low, high = guard.bold, 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            holds = self._holds(descent, best + np.float32(middle) * (bold - best))
            low, high = (middle, high) if holds else (low, middle)
        guard.bold = None
        return best + np.float32(low) * (bold - best) if low else None

    def _holds(self, descent: Descent | GaussNewton, at: Floats) -> bool:
        """Whether the text is kept at all trade-offs that are looked at."""
        vectors = descent.look(at).values()
        parts = [self._runner.lessons(vector, self.held, Lesson(weights={})) for vector in vectors]
        return max(map(self.excess, parts)) <= self.guard.limit
