"""Guards: the price of a limit, what counts as better, what is kept of it."""

import numpy as np
import pytest

from evomerge.learn.guard import BEYOND, Guard


def test_the_price_settles_where_the_limit_is_kept() -> None:
    """The least (x - 1)^2 with x <= 0.3: there both pull as much as each other, which is a price of 1."""
    guard, x = Guard(0.3, np.zeros(3)), 0.0
    for _ in range(600):
        slope = np.array([2 * (x - 1)])
        x -= 0.05 * float((slope + guard.pull(slope, np.array([7.0])))[0])
        guard.tell(x)
    assert x == pytest.approx(0.3, abs=1e-2)
    assert guard.weight == pytest.approx(1.0, abs=0.05)
    assert not guard.pull(np.ones(2), np.zeros(2)).any()
    before = guard.weight
    guard.tell(float("nan"))
    assert guard.weight == before


def test_what_keeps_to_the_limit_is_better_whatever_its_loss() -> None:
    guard = Guard(0.03, np.zeros(3))
    here = np.ones(2, dtype=np.float32)
    assert guard.judged(5.0, 0.03, here) == 5.0
    assert BEYOND < guard.judged(0.5, 0.04, here) < guard.judged(0.1, 0.05, 2 * here)
    assert not guard.worth_drawing_back(0.05)
    assert guard.worth_drawing_back(5.0)
    assert guard.bold is not None
    assert guard.bold.tolist() == [2.0, 2.0]
    assert not guard.worth_drawing_back(BEYOND + 0.04), "there is nowhere to draw it back to"
    again = Guard.restored(0.03, guard.arrays())
    assert again.arrays().keys() == guard.arrays().keys()
    assert all(np.array_equal(again.arrays()[name], array) for name, array in guard.arrays().items())
    assert Guard.restored(0.03, Guard(0.03, np.zeros(3)).arrays()).bold is None
