"""Learning a few numbers from how each item's own scores change with them: Gauss-Newton, with losses that sharpen.

Scores are taken for linear in the numbers, item by item, and the loss of them as it is (Gauss-Newton for any convex or
other loss of residuals; Nocedal & Wright 2006, chapters 4 and 10), in a box that grows and shrinks with what such steps
come to. Nothing here knows of models. Its state is a few arrays, from which it goes on bit for bit.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.adam import Floats, clipped
from evomerge.learn.descent import HALVINGS, Ask
from evomerge.learn.losses import SHARPENING, Key, Loss, Right
from evomerge.learn.tradeoff import Weights
from evomerge.values import Value

STREAM = 9
"""Tells these random numbers from those of other parts of a search."""
RADIUS, WIDEST, NARROWEST = 0.2, 0.4, 0.005
"""Half of the side of the box, in shares of the range of a number: at first, at most, at least."""
ANEW = 0.067
"""It is at least this where the loss is another one."""
GOOD, FAIR = 0.6, 0.25
"""Shares of the gain that was hoped for from which on the box grows, or stays as it is."""
SETTLED = 0.03
"""The share of its loss that a step gains when it is time for a sharper one."""
JUDGE = Loss("error", 0.25)
"""What held-out items judge by, from beginning to end."""
INNER = 60
"""Steps in which the loss of linear scores is made small."""

Doubles: TypeAlias = NDArray[np.float64]


class NewtonCourse(Value):
    """How it goes: `steps` in all, the first `early` of which on `first` of the items and all others on `items`.

    With the scores of an item come its derivatives, and both cost `price` forward passes of it.
    """

    steps: int
    early: int
    first: int
    items: int
    price: int


class Answer(NamedTuple):
    """An item's scores (scores,), and their derivatives (scores, numbers)."""

    scores: NDArray[np.floating[Any]]
    slopes: NDArray[np.floating[Any]]


class Known(NamedTuple):
    """All items' scores at a point (scores,), their derivatives (scores, numbers), and how many each has (items,).

    The former are float32, so that a file restores them bit for bit.
    """

    scores: Floats
    slopes: Floats
    sizes: NDArray[np.int64]

    def with_more(self, other: "Known") -> "Known":
        """The same with other items behind."""
        return Known(*(np.concatenate([getattr(each, name) for each in (self, other)]) for name in self._fields))

    def readings(self, key: Key) -> tuple[Doubles, Doubles]:
        """Smooth numbers of the scores (scores,), and their derivatives (scores, numbers)."""
        scores = self.scores.astype(np.float64)
        return key.readings(scores), key.moved(scores, self.slopes.astype(np.float64))


class GaussNewton:
    """One descent from `start` (1, size), within bounds.

    `rights` says what is right of the items that there are to learn from, by task and place.
    """

    def __init__(
        self,
        start: Floats,
        course: NewtonCourse,
        rights: Mapping[str, Mapping[int, Right]],
        *,
        bounds: tuple[float, float],
        seed: int,
    ) -> None:
        self.course = course
        self._order = _in_turn(rights, seed)
        self._rights = rights
        self._bounds = bounds
        self._x: Floats = clipped(np.ascontiguousarray(start, dtype=np.float32).ravel(), bounds)
        self._known = Known(_empty(0), _empty(0, self._x.size), np.zeros(0, dtype=np.int64))
        self._radius = RADIUS
        self._sharpness = self._halvings = self.step = 0
        self.best, self.best_step, self.best_loss = self._x, 0, np.inf
        self._next: tuple[Floats, float] | None = None
        self._has_moved = True

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
        """Whether the point is another one than at the last look."""
        return self._has_moved

    @property
    def judges_by(self) -> Loss:
        """The loss of held-out items that a look is about, from beginning to end."""
        return JUDGE

    @property
    def loss(self) -> Loss:
        """What is made small now."""
        return SHARPENING[self._sharpness]

    def ask(self) -> Ask:
        """At which point the scores of which items are wanted; the same until it is told."""
        wanted = self.course.first if self.step < self.course.early else self.course.items
        new = self._order[len(self._known.sizes) : wanted]
        vector = self._x
        if not new:
            new = self._order[:wanted]
            vector, _ = self._proposed()
        items: dict[str, tuple[int, ...]] = {}
        for task, place in new:
            items[task] = (*items.get(task, ()), place)
        return Ask(vector, items, (1.0,))

    def tell(self, answers: Mapping[tuple[str, int], Answer] | None) -> None:
        """What was asked for, by task and place; None if it failed: the next step is half as long."""
        asked = self.ask()
        if answers is None:
            self._halvings += 1
            self._radius *= 0.5
            self._next = None
            return
        self.step += 1
        places = [pair for pair in self._order if pair in answers]
        told = _known([answers[pair] for pair in places])
        if asked.vector is self._x:
            self._known = self._known.with_more(told)
        else:
            self._judge_step(asked.vector, told)
        self._next = None

    def _judge_step(self, vector: Floats, told: Known) -> None:
        """Take a step or not, and learn from what it came to how long the next may be, and when to sharpen."""
        before, after = (self._value(known) for known in (self._known, told))
        _, hoped = self._proposed()
        gain, share = before - after, (before - after) / max(before - hoped, 1e-9)
        if share > GOOD:
            self._radius = min(self._radius * 1.5, WIDEST)
        elif share <= FAIR:
            self._radius = max(self._radius * 0.4, NARROWEST)
        if gain > 0:
            self._x, self._known, self._has_moved = vector, told, True
        sharper, left = len(SHARPENING) - 1 - self._sharpness, self.course.steps - self.step
        settled = gain < SETTLED * abs(before) and self.step >= self.course.early
        if sharper and (settled or left <= sharper + 1):  # The last two steps are with the sharpest.
            self._sharpness += 1
            self._radius = max(self._radius, ANEW)

    def _value(self, known: Known) -> float:
        """The mean loss at a point."""
        key = self._key(known)
        lost, _ = key.losses(key.readings(known.scores.astype(np.float64)), self.loss)
        return float(lost @ self._shares(len(known.sizes)))

    def _proposed(self) -> tuple[Floats, float]:
        """The lowest point in the box if scores were linear, and the loss there."""
        if self._next is None:
            self._next = self._lowest()
        return self._next

    def _lowest(self) -> tuple[Floats, float]:
        from scipy.optimize import minimize

        known, low, high = self._known, *self._bounds
        key, shares, x = self._key(known), self._shares(len(known.sizes)), self._x.astype(np.float64)
        readings, slopes = known.readings(key)
        owner = np.repeat(shares, known.sizes)

        def value(y: Doubles) -> tuple[float, Doubles]:
            lost, its = key.losses(readings + slopes @ (y - x), self.loss)
            return float(lost @ shares), (its * owner) @ slopes

        reach = self._radius * (high - low)
        box = np.column_stack([np.maximum(x - reach, low), np.minimum(x + reach, high)])
        found = minimize(value, x, jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": INNER})
        vector = clipped(found.x.astype(np.float32), self._bounds)
        return vector, value(vector.astype(np.float64))[0]

    def _key(self, known: Known) -> Key:
        rights = [self._rights[task][place] for task, place in self._order[: len(known.sizes)]]
        return Key.of(rights, known.sizes.tolist())

    def _shares(self, count: int) -> Doubles:
        """How much each item counts: tasks alike, and items of a task."""
        tasks = [task for task, _ in self._order[:count]]
        counts = {task: tasks.count(task) for task in dict.fromkeys(tasks)}
        return np.array([1 / (len(counts) * counts[task]) for task in tasks])

    # ---- what comes of it

    @property
    def average(self) -> Floats:
        """The point as it is now."""
        return self._x

    def look(self, at: Floats | None = None) -> dict[Weights, Floats]:
        """The point whose held-out loss says how far it, or what is `at` its place, has come."""
        return {(1.0,): self._x if at is None else at}

    def judge(self, loss: float, at: Floats | None = None) -> None:
        """The held-out loss of the point as it is now, or of what is `at` its place; the best one is kept."""
        self._has_moved = False
        if np.isfinite(loss) and loss < self.best_loss:
            best = self._x if at is None else at
            self.best, self.best_step, self.best_loss = best.copy(), self.step, float(loss)

    def best_at(self, _: Weights) -> Floats:
        """The best point (size,): there is one objective."""
        return self.best

    @property
    def best_terms(self) -> Floats:
        """The best point, (1, size): another descent may start from it."""
        return self.best[None]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is, to be kept."""
        counts = [self.step, self._halvings, self._sharpness, self.best_step, self._has_moved]
        return {
            "x": self._x, "best": self.best, "scores": self._known.scores, "slopes": self._known.slopes,
            "sizes": self._known.sizes, "counts": np.array(counts, dtype=np.int64),
            "reals": np.array([self._radius, self.best_loss]),
        }  # fmt: skip

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Be what was kept.

        Raises:
            ValueError: it was of another descent.
        """
        if arrays["x"].shape != self._x.shape:
            raise ValueError(f"it has {arrays['x'].size} numbers, and this run learns {self._x.size}")
        self.step, self._halvings, self._sharpness, self.best_step, moved = map(int, arrays["counts"])
        self._radius, self.best_loss = map(float, arrays["reals"])
        self._x, self.best = (np.array(arrays[name], dtype=np.float32) for name in ("x", "best"))
        scores, slopes = (np.array(arrays[name], dtype=np.float32) for name in ("scores", "slopes"))
        self._known = Known(scores, slopes, np.array(arrays["sizes"], dtype=np.int64))
        self._next, self._has_moved = None, bool(moved)


def _empty(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float32)


def _known(answers: Sequence[Answer]) -> Known:
    scores, slopes = zip(*answers, strict=True)
    sizes = np.array([len(each) for each in scores], dtype=np.int64)
    return Known(np.concatenate(scores).astype(np.float32), np.concatenate(slopes).astype(np.float32), sizes)


def _in_turn(rights: Mapping[str, Mapping[int, Right]], seed: int) -> list[tuple[str, int]]:
    """All items in a random order, tasks in turn: however many are taken, of each there are as many."""
    rows = []
    for index, (task, places) in enumerate(rights.items()):
        order = np.random.default_rng((seed, STREAM, index)).permutation(len(places))
        rows.append([(task, list(places)[at]) for at in order])
    return [pair for turn in zip_longest(*rows) for pair in turn if pair is not None]
