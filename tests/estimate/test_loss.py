"""Which objectives are told by their loss, and that the loss is the cross-entropy of what is right."""

import math
from typing import Any

import numpy as np
import pytest

from evomerge.assemble.told import with_told
from evomerge.errors import SpecError
from evomerge.estimate import Appraiser, Grader, Ledger, Piece, with_loss, with_losses
from evomerge.estimate.loss import LOSS, loss
from evomerge.fitness import EstimatorSpec, Fitness, Objective, TieBreak
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.space import BlendSpec
from evomerge.spec import CmaSpec, Models, Nsga2Spec, OptimizerSpec, RandomSpec, RunSpec, TpeSpec
from evomerge.trial import Draw

COUNT = 30
IDS = tuple(map(str, range(COUNT)))
RIGHT = tuple((place % 3,) for place in range(COUNT))
SCORES = tuple(map(tuple, np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32).tolist()))


def items(golds: tuple[tuple[int, ...], ...]) -> TaskItems:
    pool = Pool(ids=IDS, clusters=IDS, golds=golds)
    return TaskItems(search=pool, confirm=pool, metrics={"acc": True, "acc_norm": True, "perplexity": False})


TABLE = ItemTable(tasks={"scored": items(RIGHT), "other": items(()), "also": items(((),) * COUNT)})


def run(optimizer: OptimizerSpec, *objectives: Objective) -> RunSpec:
    return RunSpec(
        models=Models(experts={"a": "/a", "b": "/b"}),
        space=BlendSpec(),
        fitness=Fitness(objectives={str(place): objective for place, objective in enumerate(objectives)}),
        optimizer=optimizer,
    )


PLAIN = Objective(task="scored")


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (PLAIN, True),
        (Objective(task="also", metric="acc"), True),
        (Objective(tasks=("scored", "also")), True),
        (Objective(tasks=("scored", "other")), False),
        (Objective(task="scored", metric="acc_norm"), False),
        (Objective(task="scored", metric="perplexity"), False),
        (Objective(task="scored", direction="min"), False),
        (Objective(task="scored", tie_break=TieBreak(metric="perplexity", weight=0.1)), True),
        (Objective(cost="layers"), False),
    ],
)
def test_accuracies_of_tasks_with_scores_have_a_loss(objective: Objective, expected: bool) -> None:
    fitness = Fitness(objectives={"it": objective, "more": PLAIN})
    assert with_loss(fitness, TABLE) == ({"it", "more"} if expected else {"more"})


@pytest.mark.parametrize(
    ("optimizer", "objectives", "expected"),
    [
        (CmaSpec(), (PLAIN,), "loss"),
        (CmaSpec(), (PLAIN, PLAIN), "metric"),
        (CmaSpec(told="loss"), (PLAIN, PLAIN), "loss"),
        (CmaSpec(told="metric"), (PLAIN,), "metric"),
        (CmaSpec(), (Objective(task="scored", tie_break=TieBreak(metric="perplexity", weight=0.1)),), "metric"),
        (Nsga2Spec(), (PLAIN, Objective(task="other")), "metric"),
        (Nsga2Spec(told="loss"), (PLAIN, Objective(task="other")), "loss"),
        (TpeSpec(), (PLAIN,), "loss"),
        (TpeSpec(), (Objective(task="other"),), "metric"),
        (RandomSpec(), (PLAIN,), None),
    ],
)
def test_the_loss_of_a_single_objective_is_told_unless_a_tie_break_says_otherwise(
    optimizer: OptimizerSpec, objectives: tuple[Objective, ...], expected: Any
) -> None:
    resolved = with_told(run(optimizer, *objectives), TABLE, 14).optimizer
    assert resolved is not None
    assert resolved.told == expected


def test_losses_that_nothing_has_are_refused() -> None:
    with pytest.raises(SpecError, match="optimizer.told: no objective is acc or exact_match .* leave told out"):
        with_told(run(CmaSpec(told="loss"), Objective(task="other")), TABLE, 14)


@pytest.mark.parametrize("right", [(0,), (2,), (0, 2), (0, 1, 2)])
def test_a_loss_is_minus_the_log_of_a_probability(right: tuple[int, ...]) -> None:
    for row in SCORES:
        shares = np.exp(row) / np.exp(row).sum()
        assert loss(row, right) == pytest.approx(-math.log(shares[list(right)].sum()), abs=1e-12)
    assert loss((-0.25, -1.5), ()) == 1.75


def test_an_optimiser_is_told_minus_the_mean_loss_of_the_pool_and_the_metric_is_reported() -> None:
    fitness = Fitness(objectives={"it": PLAIN}, estimator=EstimatorSpec(kind="mean", items="all"))
    table = ItemTable(tasks={"scored": TABLE.tasks["scored"]})
    marks = {"scored": {"acc": tuple(float(place % 2) for place in range(COUNT))}}
    ledger, draw = Ledger(table), Draw(pool="search")
    ledger.add(Piece(0, (0.5,), draw, with_losses(marks, {"scored": SCORES}, draw, table)))
    by_loss, by_metric = (Appraiser(Grader(fitness, table), ledger, losses=losses) for losses in (["it"], ()))
    each = np.array([loss(row, right) for row, right in zip(SCORES, RIGHT, strict=True)])
    told, plain = by_loss.observe([0])[0], by_metric.observe([0])[0]
    assert told.utilities == (pytest.approx(-each.mean()),)
    assert plain.utilities == (pytest.approx(0.5),)
    assert by_loss.reported(0) == by_metric.reported(0)
    few = Draw(pool="search", places={"scored": (7, 2)})
    part = {"scored": {"acc": (1.0, 0.0)}}
    assert with_losses(part, {"scored": (SCORES[7], SCORES[2])}, few, table)["scored"][LOSS] == (each[7], each[2])


def test_items_are_drawn_by_what_is_told_of_them() -> None:
    """Where the loss is told, items that all get right differ by how sure of it candidates are."""
    fitness = Fitness(objectives={"it": PLAIN})
    table = ItemTable(tasks={"scored": TABLE.tasks["scored"]})
    ledger, whole = Ledger(table), Draw(pool="search")
    spread = np.linspace(0.0, 6.0, COUNT)
    for number in range(6):
        sure = [tuple(9.0 + spread[i] * (number % 2) * (place in RIGHT[i]) for place in range(3)) for i in range(COUNT)]
        draw = whole if number < 2 else Draw(pool="search", places={"scored": tuple(range(COUNT))}, generation=0)
        marks = with_losses({"scored": {"acc": (1.0,) * COUNT}}, {"scored": sure}, draw, table)
        ledger.begin(0)
        ledger.add(Piece(number, (number / 6,), draw, marks, work=number), is_parent=number < 2)
    ledger.begin(1)
    by_loss, by_metric = (Appraiser(Grader(fitness, table), ledger, losses=losses) for losses in (["it"], ()))
    assert np.ptp(by_metric.sizes("scored", 1)) == pytest.approx(0.0, abs=1e-9)
    sizes = by_loss.sizes("scored", 1)
    assert sizes[-1] > 1.5 * sizes[0]
    assert np.corrcoef(sizes, spread)[0, 1] > 0.8
