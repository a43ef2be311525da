"""Means and errors against closed forms and brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.estimate import Grader
from evomerge.estimate.evidence import share_interval
from evomerge.estimate.grade import mean_and_error
from evomerge.fitness import Fitness, Items, Objective, TieBreak
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.trial import Draw

MARKS = st.lists(st.floats(0, 1), min_size=2, max_size=60)


@settings(deadline=None)
@given(MARKS)
def test_without_clusters_it_is_the_usual_standard_error(marks: list[float]) -> None:
    values = np.array(marks)
    mean, error = mean_and_error(values, [str(i) for i in range(len(marks))])
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)), abs=1e-12)


@settings(deadline=None)
@given(MARKS, st.integers(2, 4))
def test_copies_of_items_add_no_certainty(marks: list[float], copies: int) -> None:
    clusters = [str(i) for i in range(len(marks))]
    once = mean_and_error(np.array(marks), clusters)
    often = mean_and_error(np.array(marks * copies), clusters * copies)
    assert often == pytest.approx(once)


def test_clustered_error_covers_what_it_says() -> None:
    """Items of a cluster that stand or fall together: 95 % intervals hold the truth in about 95 % of draws."""
    rng = np.random.default_rng(1)
    covered = naive = 0
    for _ in range(600):
        luck = np.repeat(rng.random(60), 4)
        marks = (rng.random(240) < 0.2 + 0.6 * (luck > 0.5)).astype(float)
        mean, error = mean_and_error(marks, np.repeat(np.arange(60), 4).astype(str))
        covered += abs(mean - 0.5) < 1.96 * error
        naive += abs(mean - 0.5) < 1.96 * marks.std() / np.sqrt(240)
    assert 0.92 < covered / 600 < 0.975
    assert naive / 600 < 0.88


@settings(deadline=None)
@given(MARKS, st.randoms())
def test_weighted_means_are_those_of_repeated_items(marks: list[float], rng: Any) -> None:
    copies = [rng.randint(1, 4) for _ in marks]
    clusters = [str(i // 2) for i in range(len(marks))]
    weighted = mean_and_error(np.array(marks), clusters, copies)
    repeated = mean_and_error(np.repeat(marks, copies), np.repeat(clusters, copies).tolist())
    assert weighted == pytest.approx(repeated, abs=1e-12)


@settings(deadline=None)
@given(MARKS)
def test_equal_weights_are_no_weights(marks: list[float]) -> None:
    clusters = [str(i // 3) for i in range(len(marks))]
    plain = mean_and_error(np.array(marks), clusters)
    assert mean_and_error(np.array(marks), clusters, (0.25,) * len(marks)) == plain
    mean = np.mean(marks)
    sums = [sum(v - mean for v, c in zip(marks, clusters, strict=True) if c == g) for g in dict.fromkeys(clusters)]
    if len(sums) > 1:
        expected = np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(marks)
        assert plain == pytest.approx((mean, expected), abs=1e-12)


def test_one_cluster_tells_nothing() -> None:
    assert mean_and_error(np.array([1.0, 0.0]), ["a", "a"]) == (0.5, 0.5)


def pool(*ids: str) -> Pool:
    return Pool(ids=ids, clusters=ids)


TABLE = ItemTable(
    tasks={
        "a": TaskItems(
            search=pool("a1", "a2", "a3", "a4"), confirm=pool("a5", "a6"), metrics={"acc": True, "nll": False}
        ),
        "b": TaskItems(
            search=pool("b1", "b2"), confirm=pool("b3", "b4"), metrics={"em,strict": True, "em,loose": True}
        ),
    }
)
FITNESS = Fitness(
    objectives={
        "skill": Objective(task="a", metric="acc", weight=3.0, tie_break=TieBreak(metric="nll", weight=0.1)),
        "loss": Objective(task="a", metric="nll"),
        "both": Objective(tasks=("a", "b")),
    },
    items=Items(search=4),
)
MARKED = {
    "a": {"acc": (1.0, 0.0, 1.0, 1.0), "nll": (0.5, 2.0, 0.5, 1.0)},
    "b": {"em,strict": (1.0, 0.0), "em,loose": (1.0, 1.0)},
}
SEARCH = Draw(pool="search")


def test_objectives_are_means_of_their_tasks_means() -> None:
    grader = Grader(FITNESS, TABLE)
    values = grader.values(MARKED, SEARCH)
    assert {label: value for label, (value, _) in values.items()} == {"skill": 0.75, "loss": 1.0, "both": 0.625}
    a, b = (values["skill"][1], mean_and_error(np.array([1.0, 0.0]), ["x", "y"])[1])
    assert values["both"][1] == pytest.approx(np.hypot(a, b) / 2)
    assert grader.oriented(values) == (0.75, -1.0, 0.625)


def test_differences_are_paired() -> None:
    other = {"a": {"acc": (1.0, 0.0, 0.0, 1.0), "nll": (0.5, 2.0, 0.5, 1.0)}, "b": MARKED["b"]}
    found = Grader(FITNESS, TABLE).differences(MARKED, other, SEARCH)
    assert found["skill"] == pytest.approx((0.25, 0.25))
    assert found["loss"] == (0.0, 0.0)


def test_items_count_for_their_weights_in_whole_pools_and_in_parts() -> None:
    weighted = Pool(
        ids=("a1", "a2", "a3"), clusters=("a1", "a2", "a3"), weights=(0.25, 0.25, 0.5), strata=("x", "x", "y")
    )
    rest = Pool(ids=("a4",), clusters=("a4",), weights=(1.0,), strata=("y",))
    items = TaskItems(search=weighted, confirm=rest, metrics={"acc": True}, whole_weights={"x": 0.25, "y": 0.25})
    fitness = Fitness(objectives={"it": Objective(task="a")})
    grader = Grader(fitness, ItemTable(tasks={"a": items}))
    marks, none = {"a": {"acc": (1.0, 0.0, 1.0)}}, {"a": {"acc": (0.0,)}}
    assert grader.values(marks, SEARCH)["it"][0] == pytest.approx(0.75)
    part = Draw(pool="search", places={"a": (1, 2)})
    assert grader.values({"a": {"acc": (0.0, 1.0)}}, part)["it"][0] == pytest.approx(2 / 3)
    assert grader.differences(marks, {"a": {"acc": (1.0, 0.0, 0.0)}}, SEARCH)["it"][0] == pytest.approx(0.5)
    assert grader.joined([marks, none])["it"][0] == pytest.approx(0.5)


def test_directions_can_be_turned_round() -> None:
    fitness = Fitness(objectives={"x": Objective(task="a", metric="acc", direction="min")})
    assert Grader(fitness, TABLE).sign("x") == -1


def test_scalarisations() -> None:
    weighted = FITNESS.scalar((0.75, -1.0, 0.625), ())
    assert weighted == pytest.approx((3 * 0.75 - 1.0 + 0.625) / 5)
    chebyshev = FITNESS.model_copy(update={"scalarisation": "chebyshev"})
    bounds = ((0.0, 1.0), (-2.0, 0.0), (0.0, 1.0))
    balanced, lopsided = (chebyshev.scalar(point, bounds) for point in ((0.8, -0.5, 0.5), (1.0, -1.9, 1.0)))
    assert balanced > lopsided
    stretched = [(0.0, 1.0), (-200.0, 0.0), (0.0, 1.0)]
    assert chebyshev.scalar((0.8, -50.0, 0.5), stretched) == pytest.approx(balanced), "the unit does not matter"


def test_uses_that_agree_share_their_marks() -> None:
    fitness = Fitness(
        objectives={
            "x": Objective(task="a", metric="acc"),
            "y": Objective(task="a", metric="nll"),
            "z": Objective(task="a", metric="acc", fewshot=3),
        }
    )
    assert list(fitness.uses()) == ["a", "a #2"]
    assert [fitness.keys(label) for label in "xyz"] == [("a",), ("a",), ("a #2",)]


@pytest.mark.parametrize("count", [20, 200])
@pytest.mark.parametrize("chance", [0.02, 0.1, 0.5, 0.97])
def test_intervals_of_shares_hold_the_truth_also_near_the_ends(count: int, chance: float) -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(800):
        marks = (rng.random(count) < chance).astype(float)
        low, high = share_interval(*mean_and_error(marks, [str(i) for i in range(count)]), count - 1)
        assert 0 <= low <= marks.mean() <= high <= 1
        held += low <= chance <= high
    assert 0.9 < held / 800 < 0.995


def test_intervals_of_other_marks_may_lie_anywhere() -> None:
    grader = Grader(FITNESS, TABLE)
    marks = {**MARKED, "a": {"acc": (0.0,) * 4, "nll": (0.5, 2.0, 0.5, 1.0)}}
    low, high = grader.interval(marks, "search", "skill")
    assert low == pytest.approx(0, abs=1e-12)
    assert 0.3 < high < 0.8, "four wrong answers do not prove that there are no right ones"
    assert grader.interval(marks, "search", "loss")[0] < 0.5
