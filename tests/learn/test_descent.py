"""Descents on losses whose answers are known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.learn.adam import Adam
from evomerge.learn.descent import Course, Descent
from evomerge.learn.layout import Block, Layout
from evomerge.learn.lots import Lots
from evomerge.learn.tradeoff import drawn, places_of, points_of, weights_at

Slopes = Callable[[NDArray[np.float64]], NDArray[np.float64]]
COURSE = Course(steps=200, batch=4, rate=0.05, every=50)
POOLS = {"a": range(3, 13), "b": range(20)}


def lots(objectives: int = 1) -> Lots:
    return Lots(POOLS, [["a", "b"]] if objectives == 1 else [["a"], ["b"]], seed=3)


def descent(size: int = 5, objectives: int = 1, course: Course = COURSE) -> Descent:
    start = np.zeros((objectives, size), dtype=np.float32)
    return Descent(start, course, lots(objectives), bounds=(-1.0, 1.0), seed=3)


def go(found: Descent, targets: list[NDArray[np.float64]], steps: int) -> None:
    """Steps on the weighted sum of squared distances to the targets."""
    for _ in range(steps):
        asked = found.ask()
        slopes = np.zeros(5)
        for weight, target in zip(asked.weights, targets, strict=True):
            slopes += weight * (asked.vector - target)
        found.tell(slopes)
        found.judge(1 / found.step)


def test_adam_takes_the_steps_of_torch() -> None:
    import torch

    rng = np.random.default_rng(0)
    x = torch.nn.Parameter(torch.zeros(6))
    theirs = torch.optim.Adam([x], lr=0.03, betas=(0.9, 0.97), eps=1e-12)
    ours = Adam(np.zeros(6, dtype=np.float32))
    for _ in range(20):
        slopes = rng.normal(size=6).astype(np.float32)
        x.grad = torch.from_numpy(slopes)
        theirs.step()
        ours.step(slopes, 0.03, None)
    np.testing.assert_allclose(ours.x, x.detach().numpy(), atol=1e-5)


def test_a_rate_that_is_too_much_is_halved_from_the_best_iterate_on() -> None:
    wild = Course(steps=200, batch=4, rate=2.0, every=10)
    found, target = descent(course=wild), np.linspace(-0.02, 0.02, 5)
    losses = []
    while not found.is_over:
        if found.step in wild.looks():
            losses.append(float(np.sum((found.average_at((1.0,)) - target) ** 2)))
            found.judge(losses[-1])
        found.tell((found.ask().vector - target).astype(np.float64))
    assert max(losses[1:4]) > losses[0]  # Where such steps lead.
    assert found.best_loss < 0.01 * losses[0]


def test_the_minimum_is_found_within_the_bounds() -> None:
    found, target = descent(), np.array([0.3, -0.2, 0.0, 5.0, -5.0])
    go(found, [target], 200)
    np.testing.assert_allclose(found.average_at((1.0,)), np.clip(target, -1, 1), atol=0.01)
    assert found.is_over


def test_a_front_of_two_squares_is_the_nearest_line_to_its_minima() -> None:
    one, other = np.full(5, 0.5), np.full(5, -0.5)
    found = descent(objectives=2, course=COURSE.model_copy(update={"steps": 600}))
    go(found, [one, other], 600)
    rng = np.random.default_rng(1)
    places = np.array([drawn(2, rng)[0] for _ in range(5000)])
    minima = np.array([weights_at((place,))[0] - 0.5 for place in places])  # Where the weighted sum's slope is zero.
    slope = (places * minima).sum() / (places * places).sum()
    middle, end = found.average_at((0.5, 0.5)), found.average_at(weights_at((0.5,)))
    np.testing.assert_allclose(middle, 0, atol=0.05)
    np.testing.assert_allclose(end, slope / 2, atol=0.06)


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_descent_goes_on_bit_for_bit_from_what_was_kept(objectives: int) -> None:
    targets = [np.full(5, 0.7), np.full(5, -0.1)][:objectives]
    whole, first = descent(objectives=objectives), descent(objectives=objectives)
    go(whole, targets, 40)
    go(first, targets, 17)
    first.ask()  # What was in flight when it was killed.
    again = descent(objectives=objectives)
    again.restore(first.arrays())
    go(again, targets, 23)
    for name, array in whole.arrays().items():
        assert np.array_equal(array, again.arrays()[name]), name


def test_a_failure_halves_the_rate_and_three_are_borne() -> None:
    found = descent()
    go(found, [np.ones(5)], 3)
    before = found._rate()
    asked = found.ask()
    found.tell(None)
    assert found._rate() == pytest.approx(before / 2)
    assert found.ask().items != asked.items, "what failed is not asked again"
    for _ in range(2):
        assert not found.is_over
        found.ask()
        found.tell(np.full(5, np.nan))
    assert not found.is_over
    found.ask()
    found.tell(None)
    assert found.is_over


def test_all_items_have_their_turn_and_none_comes_twice_in_a_draw() -> None:
    handed = lots()
    seen = [handed.draw(10, (1.0,)) for _ in range(6)]
    assert all(len(set(places)) == len(places) == 5 for draw in seen for places in draw.values())
    assert {place for draw in seen[:2] for place in draw["a"]} == set(POOLS["a"])
    assert {place for draw in seen[:4] for place in draw["b"]} == set(POOLS["b"])


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (0.34, 0.66)])
def test_objectives_get_items_in_proportion_to_their_weights(weights: tuple[float, float]) -> None:
    found = lots(2).draw(10, weights)
    assert [len(found.get(task, ())) for task in "ab"] == [round(10 * weight) for weight in weights]


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.93, 0.07), (0.2, 0.3, 0.5)])
def test_places_and_weights_undo_one_another(weights: tuple[float, ...]) -> None:
    assert weights_at(places_of(weights)) == pytest.approx(weights)


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_points_of_a_front_are_weights(objectives: int) -> None:
    points = points_of(objectives)
    assert all(len(point) == objectives and sum(point) == pytest.approx(1) for point in points)
    assert len(set(points)) == len(points)


def test_a_layout_undoes_itself() -> None:
    layout = Layout("column", [Block("one", 2, 3), Block("two", 2, 1)])
    vector = np.arange(8, dtype=np.float32)
    found = layout.expanded(vector)
    assert found.arrays["one"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.arrays["two"].tolist() == [[6], [7]]
    assert np.array_equal(layout.pulled(found.arrays), vector)
    assert layout.gathered({"one": (1, 2), "two": (3, 4)}).tolist() == [1, 1, 1, 2, 2, 2, 3, 4]


def test_tied_coefficients_are_one_number_and_their_slopes_add_up() -> None:
    layout = Layout("tensor", [Block("one", 2, 1), Block("two", 2, 1)], ties=np.array([0, 1, 0, 1]))
    assert layout.size == 2
    assert layout.expanded(np.array([0.5, 2.0], dtype=np.float32)).arrays["two"].tolist() == [[0.5], [2.0]]
    slopes = {"one": np.array([[1.0], [2.0]], dtype=np.float32), "two": np.array([[10.0], [20.0]], dtype=np.float32)}
    assert layout.pulled(slopes).tolist() == [11, 22]
    assert layout.gathered({"one": (1, 2), "two": (3, 4)}).tolist() == [2, 3]
