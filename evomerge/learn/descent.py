"""Learning merge coefficients along the slopes of the loss: what to ask next, what follows from the answer.

Nothing here knows of models: a descent is told slopes, and is what it was told. Its state is a few arrays, from which
it goes on bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.adam import Adam, Floats, clipped
from evomerge.learn.losses import Loss
from evomerge.learn.lots import Lots
from evomerge.learn.tradeoff import Weights, drawn, places_of, weights_at
from evomerge.values import Value

STREAM = 8
"""Tells these random numbers from those of other parts of a search."""
LAST = 0.15
"""The rate falls in a line to this share of it."""
FORGETS = {1: 0.12, 2: 0.05}
"""By how much the average forgets, of one objective and of a front: its steps are of different trade-offs."""
HALVINGS = 3
"""Times that the rate is halved after a failure, before the descent ends where it is."""


class Course(Value):
    """How a descent goes: so many `steps` on a `batch` of items each, at a `rate` (coefficient a step) that falls.

    It is looked at on held-out items after every `every` steps.
    """

    steps: int
    batch: int
    rate: float
    every: int

    def looks(self) -> tuple[int, ...]:
        """Steps after which it is looked at; before the first one, and after the last."""
        return tuple(sorted({*range(0, self.steps, self.every), self.steps}))


class Ask(NamedTuple):
    """What a step needs: the vector, the items by task that its slopes are wanted on, and how objectives weigh."""

    vector: Floats
    items: Mapping[str, tuple[int, ...]]
    weights: Weights


class Descent:
    """One descent by Adam, over vectors c_0, c_1, ... of coefficients as linear functions of the trade-off.

    With one objective, or at one trade-off `alone`, that is one vector. `start` holds them, (vectors, size); `bounds`
    hold for every coefficient.
    """

    def __init__(
        self, start: Floats, course: Course, lots: Lots, *, bounds: tuple[float, float], seed: int,
        alone: Weights = (1.0,),
    ) -> None:  # fmt: skip
        self.course = course
        self._lots = lots
        self._bounds = bounds
        self._seed = seed
        self._alone = alone
        self._shape = start.shape
        self._forgets = FORGETS[min(2, len(start))]
        self._adam = Adam(np.ascontiguousarray(start, dtype=np.float32).ravel(), forgets=self._forgets)
        self._halvings = 0
        self._failures = 0
        self._returns = 0
        self.best: Floats = self._adam.average
        self.best_step = 0
        self.best_loss = np.inf

    @property
    def step(self) -> int:
        """How many steps were made."""
        return self._adam.steps

    @property
    def is_over(self) -> bool:
        """Whether there is no step left, or too many failed."""
        return self.step >= self.course.steps or self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether too many steps failed."""
        return self._halvings > HALVINGS

    @property
    def is_worth_a_look(self) -> bool:
        """Whether the course wants a look after this step."""
        return self.step in self.course.looks()

    @property
    def judges_by(self) -> Loss:
        """The loss of held-out items that a look is about."""
        return Loss()

    def ask(self) -> Ask:
        """What the next step needs; the same until it is told."""
        tries = self.step + self._failures
        places = drawn(self._shape[0], np.random.default_rng((self._seed, STREAM, tries)))
        weights = weights_at(places) if places else self._alone
        taken = dict(self._lots.taken)
        items = self._lots.draw(self.course.batch, weights)
        self._asked, self._lots.taken = (places, dict(self._lots.taken)), taken
        return Ask(self._at(self._adam.x, places), items, weights)

    def tell(self, slopes: NDArray[np.float64] | None) -> None:
        """The slopes (size,) of the mean loss that was asked for; None if it failed: the next step is half as long."""
        places, self._lots.taken = self._asked
        if slopes is None or not np.isfinite(slopes).all():
            self._failures += 1
            self._halvings += 1
            self._adam.x = self._adam.average.copy()
            return
        factors = np.array([1.0, *np.clip(places, -1.0, 1.0)])
        bounds = self._bounds if self._shape[0] == 1 else None  # Of a front the sum has bounds, not its parts.
        self._adam.step(np.outer(factors, slopes).astype(np.float32).ravel(), self._rate(), bounds)

    def _rate(self) -> float:
        falling = max(LAST, 1 - self.step / self.course.steps)
        return float(self.course.rate * falling * 0.5 ** (self._halvings + self._returns))

    @property
    def average(self) -> Floats:
        """The average iterate as it is now, of all terms."""
        return self._adam.average

    def look(self, at: Floats | None = None) -> dict[Weights, Floats]:
        """The vectors by trade-off whose held-out loss says how far the average, or what is `at` its place, came."""
        flat = self._adam.average if at is None else at
        objectives = self._shape[0]
        corners = [tuple(map(float, row)) for row in np.full((objectives, objectives), 0.15) + np.eye(objectives) * 0.7]
        wanted = [self._alone] if objectives == 1 else [tuple(w / sum(corner) for w in corner) for corner in corners]
        return {weights: self._at(flat, self._places(weights)) for weights in wanted}

    def judge(self, loss: float, at: Floats | None = None) -> None:
        """The held-out loss of the average as it is now, or of what is `at` its place; the best one is kept.

        From a worse one it goes back to the best, and on in steps half as long: the rate was too much for what the
        items say, or more is not to be had from them.
        """
        if np.isfinite(loss) and loss < self.best_loss:
            best = self._adam.average if at is None else at
            self.best, self.best_step, self.best_loss = best.copy(), self.step, float(loss)
        else:
            self._returns += 1
            self._adam.x, self._adam.average = self.best.copy(), self.best.copy()

    def average_at(self, weights: Weights) -> Floats:
        """The average iterate (size,) at a trade-off."""
        return self._at(self._adam.average, self._places(weights))

    def best_at(self, weights: Weights) -> Floats:
        """The best average (size,) at a trade-off."""
        return self._at(self.best, self._places(weights))

    @property
    def best_terms(self) -> Floats:
        """The best average, (objectives, size): another descent may start from it."""
        return self.best.reshape(self._shape)

    def _places(self, weights: Weights) -> tuple[float, ...]:
        return () if self._shape[0] == 1 else places_of(weights)

    def _at(self, flat: Floats, places: Sequence[float]) -> Floats:
        terms = flat.reshape(self._shape)
        vector = terms[0].copy()
        for place, term in zip(np.clip(places, -1.0, 1.0), terms[1:], strict=True):
            vector += np.float32(place) * term
        return clipped(vector, self._bounds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is, to be kept."""
        adam = self._adam
        counts = [adam.steps, self._halvings, self._failures, self.best_step, *self._lots.taken.values()]
        return {
            "x": adam.x, "average": adam.average, "mean": adam.mean, "square": adam.square, "best": self.best,
            "counts": np.array(counts, dtype=np.int64), "best_loss": np.array([self.best_loss]),
            "returns": np.array([self._returns], dtype=np.int64),
        }  # fmt: skip

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Be what was kept.

        Raises:
            ValueError: it was of another descent.
        """
        if arrays["x"].shape != self._adam.x.shape:
            raise ValueError(f"it has {arrays['x'].size} numbers, and this run learns {self._adam.x.size}")
        steps, self._halvings, self._failures, self.best_step, *taken = map(int, arrays["counts"])
        x, average, mean, square, self.best = (
            np.array(arrays[name], dtype=np.float32) for name in ("x", "average", "mean", "square", "best")
        )
        self._adam = Adam(x, average, mean, square, steps, self._forgets)
        self.best_loss, self._returns = float(arrays["best_loss"][0]), int(arrays["returns"][0])
        self._lots.taken = dict(zip(self._lots.taken, taken, strict=True))
