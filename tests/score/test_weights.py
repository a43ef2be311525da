"""What documents count for in groups, and that a search sees the same."""

from pathlib import Path

import numpy as np
import pytest
from lm_tasks import LEAVES, write_groups

from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import Pool, TaskItems
from evomerge.score import open_banks

EVERY = 12
"""Search items: enough to meet every sub-task."""


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_groups(tmp_path_factory.mktemp("groups"))


def opened(groups: Path, task: str, **objective: str) -> TaskItems:
    items = Items(search=EVERY, confirm=sum(LEAVES.values()) - EVERY)
    fitness = Fitness(include=(str(groups),), objectives={"it": Objective(task=task, **objective)}, items=items)
    return open_banks(fitness)[task].table


def leaf_shares(pool: Pool) -> dict[str, float]:
    shares = pool.shares()
    assert shares.sum() == pytest.approx(1)
    return {leaf: float(shares[[leaf == other for other in pool.strata]].sum()) for leaf in LEAVES}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("even", {"one": 1 / 3, "two": 1 / 3, "three": 1 / 3}),  # lm-eval's mean is over leaves, however deep.
        ("nested", {"one": 1 / 2, "two": 1 / 4, "three": 1 / 4}),
        ("nested_sized", {"one": 1 / 2, "two": 9 / 58, "three": 20 / 58}),
        ("leaves", {"one": 1 / 3, "two": 1 / 3, "three": 1 / 3}),  # A tag defines no number.
        ("sized", {"one": 4 / 33, "two": 9 / 33, "three": 20 / 33}),
    ],
)
def test_sub_tasks_count_for_what_their_group_says(task: str, expected: dict[str, float], groups: Path) -> None:
    table = opened(groups, task)
    assert set(table.search.strata) == set(table.confirm.strata) == set(LEAVES)
    both = leaf_shares(table.whole())
    assert both == pytest.approx(expected)
    assert (table.search.weights == ()) == (task == "sized")
    if "sized" not in task:
        assert leaf_shares(table.search) == pytest.approx(expected)


def test_a_metric_that_the_group_does_not_aggregate_is_weighed_like_one_that_it_does(groups: Path) -> None:
    assert opened(groups, "sized", metric="acc").search.weights == ()
    assert opened(groups, "even", metric="acc") == opened(groups, "even", metric="perplexity")


def test_a_single_task_has_equal_weights_and_no_strata(groups: Path) -> None:
    items = Items(search=5, confirm=5)
    fitness = Fitness(include=(str(groups),), objectives={"it": Objective(task="three")}, items=items)
    pool = open_banks(fitness)["three"].table.search
    assert (pool.weights, pool.strata) == ((), ())
    assert pool.shares().tolist() == [0.2] * 5
    assert pool.shares([1, 3]).tolist() == [0.5, 0.5]


def test_places_share_what_there_is() -> None:
    pool = Pool(ids=("a", "b", "c"), clusters=("a", "b", "c"), weights=(0.25, 0.25, 0.5), strata=("x", "x", "y"))
    assert pool.shares([0, 2]) == pytest.approx(np.array([1 / 3, 2 / 3]))


def test_sub_tasks_that_a_pool_lacks_do_not_count_there(groups: Path) -> None:
    items = Items(search=1, confirm=sum(LEAVES.values()) - 1)
    fitness = Fitness(include=(str(groups),), objectives={"it": Objective(task="even")}, items=items)
    table = open_banks(fitness)["even"].table
    assert table.search.weights == (1.0,)
    assert leaf_shares(table.whole()) == pytest.approx(dict.fromkeys(LEAVES, 1 / 3))
