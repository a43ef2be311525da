"""Fronts against brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.results.pareto import crowded_out, hypervolume, knee, non_dominated

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


def test_twins_are_on_the_front_once() -> None:
    assert non_dominated(np.ones((3, 2)).tolist()) == [0]
