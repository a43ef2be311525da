"""Fronts against brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.results.pareto import best_fronts, crowded_out, hypervolume, knee, non_dominated, worst

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


def dominates(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@settings(deadline=None)
@given(POINTS)
def test_the_front_is_what_nobody_dominates(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in non_dominated(points)]
    assert sorted(front) == sorted({p for p in points if not any(dominates(q, p) for q in points)})


@settings(deadline=None)
@given(POINTS)
def test_hypervolume_counts_the_squares_below(points: list[tuple[int, int]]) -> None:
    squares = {(x, y) for px, py in points for x in range(px) for y in range(py)}
    assert hypervolume(points, (0, 0)) == len(squares)


@settings(deadline=None, max_examples=40)
@given(POINTS, st.integers(2, 6))
def test_thinning_keeps_a_front_and_its_ends(points: list[tuple[int, int]], most: int) -> None:
    front = [points[i] for i in non_dominated(points)]
    kept = [front[i] for i in crowded_out(front, most)]
    assert len(kept) == min(most, len(front))
    assert set(kept) <= set(front)


def test_the_knee_gives_up_least() -> None:
    points = [(0.0, 1.0), (0.6, 0.9), (0.9, 0.2), (1.0, 0.0)]
    assert knee(points) == 1
    assert knee([(1.0, 1.0)]) == 0


def test_the_knee_passes_over_what_is_the_same_for_all() -> None:
    points = [(0.0, -1.0, 1.0), (0.6, -1.0, 0.9), (1.0, -1.0, 0.0)]
    assert knee(points) == 1


def test_of_equal_costs_the_better_model_is_on_the_front() -> None:
    """Many tie in a cost: of each step there is one point, and none that a smaller model equals."""
    points = [(0.5, -1.0), (0.6, -1.0), (0.6, -0.5), (0.2, -0.5), (0.7, -0.75), (0.1, -0.25), (0.1, -0.25)]
    assert non_dominated(points) == [2, 4, 5]


@settings(deadline=None)
@given(POINTS, st.integers(1, 12))
def test_the_fronts_behind_the_first_fill_up(points: list[tuple[int, int]], fewest: int) -> None:
    chosen = best_fronts(points, fewest, 24)
    front = non_dominated(points)
    assert len(chosen) == len(set(chosen)) == max(len(front), min(fewest, len(points)))
    assert chosen[: len(front)] == front
    behind = [points[i] for i in chosen[len(front) :]]
    left = [points[i] for i in set(range(len(points))) - set(chosen)]
    assert not any(dominates(one, other) for one in left for other in behind)


def test_a_long_front_is_cut_though_more_were_asked_for_of_short_ones() -> None:
    points = [(float(i), -float(i)) for i in range(40)]
    assert len(best_fronts(points, 8, 24)) == 24
    assert len(best_fronts(points, 1, 24)) == 24


def test_hypervolumes_begin_at_the_worst_and_for_costs_at_twice_a_parent() -> None:
    fixed = [(0.2, -1.0), (0.5, -1.0)]
    reference = worst(fixed, [False, True])
    assert reference == [0.2, -2.0]
    assert np.isclose(hypervolume(fixed, reference), 0.3)
    assert np.isclose(hypervolume([*fixed, (0.4, -0.5)], reference), 0.3 + 0.2 * 0.5), "a smaller model adds"
    assert np.isclose(hypervolume([*fixed, (0.9, -2.5)], reference), 0.3), "one of more than twice the size does not"


def test_twins_are_on_the_front_once() -> None:
    assert non_dominated(np.ones((3, 2)).tolist()) == [0]
