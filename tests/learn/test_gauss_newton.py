"""Gauss-Newton on scores whose best point is known."""

import numpy as np
import pytest

from evomerge.learn.course import newton_course_for
from evomerge.learn.descent import Ask
from evomerge.learn.gauss_newton import Answer, GaussNewton, NewtonCourse
from evomerge.learn.losses import SHARPENING, Key, Loss, Right

SIZE, OPTIONS, ITEMS = 3, 4, 60
COURSE = NewtonCourse(steps=20, early=5, first=30, items=60, price=4)
HIDDEN = np.array([0.3, 0.9, 0.55])


class Quiz:
    """Items of two tasks, the scores of whose options are smooth functions of a few numbers, right at HIDDEN."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._ways = rng.normal(size=(ITEMS, OPTIONS, SIZE)) * 3
        self._bends = rng.normal(size=(ITEMS, OPTIONS, SIZE))
        self._tops = rng.normal(size=(ITEMS, OPTIONS))
        golds = self.scores(HIDDEN).argmax(1)
        pairs = [("a" if n % 3 else "b", n) for n in range(ITEMS)]
        self.rights = {
            task: {n: Right(golds=(int(golds[n]),)) for name, n in pairs if name == task} for task in ("a", "b")
        }

    def scores(self, x: np.ndarray) -> np.ndarray:
        return self._tops + self._ways @ x + (np.sin(2 * self._bends * x) / 2).sum(-1)

    def answers(self, asked: Ask) -> dict[tuple[str, int], Answer]:
        x = asked.vector.astype(float)
        scores, slopes = self.scores(x), self._ways + self._bends * np.cos(2 * self._bends * x)
        return {(t, n): Answer(scores[n], slopes[n]) for t, places in asked.items.items() for n in places}

    def right(self, x: np.ndarray) -> float:
        return float((self.scores(x).argmax(1) == self.scores(HIDDEN).argmax(1)).mean())

    def loss(self, x: np.ndarray, loss: Loss) -> float:
        pairs = sorted((n, right) for rights in self.rights.values() for n, right in rights.items())
        key = Key.of([right for _, right in pairs], [OPTIONS] * ITEMS)
        lost = key.losses(key.readings(self.scores(x).ravel()), loss)[0]
        return float(np.mean([lost[list(places)].mean() for places in self.rights.values()]))


def descent(quiz: Quiz, course: NewtonCourse = COURSE) -> GaussNewton:
    start = np.full((1, SIZE), 0.5, dtype=np.float32)
    return GaussNewton(start, course, quiz.rights, bounds=(0.0, 1.5), seed=3)


def go(found: GaussNewton, quiz: Quiz, steps: int) -> None:
    for _ in range(steps):
        if not found.is_over:
            found.tell(quiz.answers(found.ask()))
            (vector,) = found.look().values()
            found.judge(quiz.loss(vector, found.judges_by))


def test_what_is_hidden_is_found_within_few_steps() -> None:
    quiz = Quiz()
    found = descent(quiz)
    go(found, quiz, COURSE.steps)
    assert found.is_over
    assert found.loss == SHARPENING[-1]
    best = found.best_at((1.0,))
    assert quiz.right(best) > 0.98 > quiz.right(np.full(SIZE, 0.5))
    assert quiz.loss(best, SHARPENING[-1]) <= quiz.loss(HIDDEN, SHARPENING[-1]) + 0.02


def test_a_loss_that_is_not_sharpened_yet_has_no_slope_where_it_ends() -> None:
    quiz = Quiz()
    found = descent(quiz, COURSE.model_copy(update={"steps": 30, "early": 30, "first": ITEMS}))
    go(found, quiz, 11)
    assert found.loss == Loss()
    (x,) = found.look().values()
    for step in np.eye(SIZE) * 0.02:
        assert quiz.loss(x, Loss()) <= min(quiz.loss(x + step, Loss()), quiz.loss(x - step, Loss())) + 1e-5


@pytest.mark.parametrize("steps", [4, 6, 9])
def test_the_last_two_steps_are_with_the_sharpest_loss(steps: int) -> None:
    quiz = Quiz()
    found = descent(quiz, COURSE.model_copy(update={"steps": steps, "early": 0}))
    go(found, quiz, steps - 2)
    assert found.loss == SHARPENING[-1] or steps < 6
    go(found, quiz, 2)
    assert found.loss == SHARPENING[-1]


def test_few_items_come_first_and_then_only_new_ones_are_asked_about() -> None:
    quiz = Quiz()
    found, asked = descent(quiz), []
    while not found.is_over:
        ask = found.ask()
        asked.append({(task, n) for task, places in ask.items.items() for n in places})
        found.tell(quiz.answers(ask))
    assert [len(each) for each in asked] == [30] * 5 + [30] + [60] * 14
    assert not asked[4] & asked[5]
    assert asked[4] | asked[5] == asked[6]
    counts = [sum(task == "b" for task, _ in each) for each in asked]
    assert counts[0] == 15, "tasks take turns"


@pytest.mark.parametrize("steps", [3, 5, 6, 11])
def test_it_goes_on_bit_for_bit_from_what_was_kept(steps: int) -> None:
    quiz = Quiz()
    whole, first = descent(quiz), descent(quiz)
    go(whole, quiz, 16)
    go(first, quiz, steps)
    first.ask()  # What was in flight when it was killed.
    again = descent(quiz)
    again.restore(first.arrays())
    go(again, quiz, 16 - steps)
    for name, array in whole.arrays().items():
        assert np.array_equal(array, again.arrays()[name]), name


def test_another_size_is_refused() -> None:
    quiz = Quiz()
    kept = descent(quiz).arrays() | {"x": np.zeros(2, dtype=np.float32)}
    with pytest.raises(ValueError, match="2 numbers, and this run learns 3"):
        descent(quiz).restore(kept)


def test_a_failure_halves_the_step_and_three_are_borne() -> None:
    quiz = Quiz()
    found = descent(quiz)
    go(found, quiz, 1)
    far = np.abs(found.ask().vector - 0.5).max()
    found.tell(None)
    assert np.abs(found.ask().vector - 0.5).max() == pytest.approx(far / 2, rel=1e-5)
    for _ in range(2):
        found.tell(None)
    assert not found.is_over
    found.tell(None)
    assert found.has_failed


def test_bounds_hold() -> None:
    quiz = Quiz()
    start = np.full((1, SIZE), 2.0, dtype=np.float32)
    found = GaussNewton(start, COURSE, quiz.rights, bounds=(0.4, 0.6), seed=3)
    go(found, quiz, 10)
    (x,) = found.look().values()
    assert ((x >= np.float32(0.4)) & (x <= np.float32(0.6))).all()


@pytest.mark.parametrize("units", range(1_000, 30_000, 700))
def test_a_course_costs_what_there_is(units: int) -> None:
    look, items = 33, 500
    course = newton_course_for(units, look, items, numbers=12, sources=2)
    if course is None:
        assert units < 2_000
        return
    asked = [course.first] * course.early + [course.items - course.first] * bool(course.early)
    asked += [course.items] * (course.steps - len(asked))
    spent = course.price * sum(asked) + look * (1 + course.steps)
    assert units - course.price * course.items - look < spent <= units
    assert course.first <= course.items <= items
