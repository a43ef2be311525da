"""Costs beside estimates: exact whatever the items, told in shares of an unchanged parent."""

import numpy as np
import pytest
from estimating import GENES, a_draw, piece_on, table, whole_piece

from evomerge.estimate import Appraiser, Grader, Ledger, Piece
from evomerge.fitness import EstimatorSpec, Fitness, Objective
from evomerge.items import COST, ItemTable
from evomerge.trial import Draw

FITNESS = Fitness(
    objectives={
        "loss": Objective(task="sums", metric="nll", direction="max"),
        "depth": Objective(cost="layers", weight=2.0),
        "size": Objective(cost="parameters"),
    },
    estimator=EstimatorSpec(items=16),
)
TABLE = ItemTable(tasks=table().tasks, costs={"layers": 6.0, "parameters": 1000.0})


def costing(piece: Piece, layers: int, parameters: int) -> Piece:
    costs = {"layers": (float(layers),), "parameters": (float(parameters),)}
    return Piece(piece.number, piece.genome, piece.draw, {**(piece.marks or {}), COST: costs}, piece.again)


@pytest.fixture
def appraiser() -> Appraiser:
    """Two parents of six layers and ten candidates of three to seven, on drawn items."""
    ledger = Ledger(TABLE)
    rng = np.random.default_rng(5)
    for number in range(2):
        marks = (rng.random(40) < 0.5).astype(float)
        ledger.add(costing(whole_piece(number, (float(number),) * GENES, marks), 6, 1000), is_parent=True)
    for number in range(2, 12):
        marks = (rng.random(40) < 0.5).astype(float)
        piece = piece_on(a_draw(0, 16), number, tuple(rng.random(GENES)), marks)
        ledger.add(costing(piece, 3 + number % 5, 500 + 100 * (number % 5)))
    return Appraiser(Grader(FITNESS, TABLE), ledger)


def test_a_cost_is_exact_on_drawn_items_and_on_all(appraiser: Appraiser) -> None:
    for number in (0, 2, 9):
        found, reported = appraiser.values(number), appraiser.reported(number)
        assert found is not None
        assert reported is not None
        layers = 6 if number == 0 else 3 + number % 5
        assert (found["depth"].value, found["depth"].error) == (layers, 0.0)
        assert (found["depth"].low, found["depth"].high) == (layers, layers)
        assert reported["depth"] == (layers, 0.0)
    reported = appraiser.reported(2)
    assert reported is not None
    assert reported["loss"][1] > 0.05


def test_optimisers_are_told_shares_of_a_parent(appraiser: Appraiser) -> None:
    parent, candidate = appraiser.observe([0, 5])
    assert parent.utilities is not None
    assert parent.utilities[1:] == (-1.0, -1.0)
    assert candidate.utilities is not None
    assert candidate.utilities[1:] == (-0.5, -0.5)
    assert candidate.errors[1:] == (0.0, 0.0)
    assert candidate.errors[0] > 0


def test_neighbours_say_nothing_of_a_cost(appraiser: Appraiser) -> None:
    genomes = {number: appraiser.ledger.of(number)[0].genome for number in range(12)}
    found = appraiser.shrunken(genomes)
    assert len(found) == 12
    for number, row in found.items():
        values = appraiser.reported(number)
        assert values is not None
        assert list(row) == ["loss", "depth", "size"]
        assert row["depth"] == values["depth"]
        assert row["size"] == values["size"]
    assert any(row["loss"] != (appraiser.reported(number) or {})["loss"] for number, row in found.items())


def test_differences_of_costs_are_exact(appraiser: Appraiser) -> None:
    one, other = (appraiser.ledger.of(number) for number in (5, 9))
    gap = appraiser.difference(one, other, "depth")
    assert (gap.value, gap.error, gap.low, gap.high) == (-4, 0.0, -4, -4)
    assert appraiser.difference(one, other, "loss").error > 0


def test_estimators_do_not_see_costs(appraiser: Appraiser) -> None:
    """What is measured, how many items a candidate has, and what is drawn are those of the tasks."""
    assert appraiser.ledger.items(2) == 16
    assert appraiser.ledger.table.count("search") == 40
    assert list(FITNESS.uses()) == ["sums"]
    assert FITNESS.keys("depth") == ()
    assert appraiser.sizes("sums", 1).shape == (40,)


def test_confirmed_costs_are_points() -> None:
    grader, pool = Grader(FITNESS, TABLE), Draw(pool="confirm")
    marks = {"sums": {"nll": (1.0, 0.0) * 20}, COST: {"layers": (5.0,), "parameters": (900.0,)}}
    other = {"sums": {"nll": (0.0, 0.0) * 20}, COST: {"layers": (6.0,), "parameters": (1000.0,)}}
    values = grader.values(marks, pool)
    assert (values["depth"], values["size"]) == ((5.0, 0.0), (900.0, 0.0))
    assert grader.joined([marks, marks])["size"] == (900.0, 0.0)
    assert grader.interval(marks, "confirm", "depth") == (5.0, 5.0)
    assert grader.differences(marks, other, pool)["size"] == (-100.0, 0.0)
    assert grader.differences(marks, other, pool)["loss"][1] > 0
    assert grader.sign("depth") == -1
    assert grader.oriented(values) == (0.5, -5 / 6, -0.9)


def test_a_sum_weighs_shares_of_a_parent_against_marks() -> None:
    assert FITNESS.scalar((0.5, -0.5, -0.9), ()) == pytest.approx((0.5 - 2 * 0.5 - 0.9) / 4)


def test_balance_passes_over_what_is_the_same_for_all() -> None:
    balanced = FITNESS.model_copy(update={"scalarisation": "chebyshev"})
    same = [(0.2, 0.8), (-1.0, -1.0), (-1.0, -1.0)]
    better, worse = (balanced.scalar((value, -1.0, -1.0), same) for value in (0.7, 0.4))
    assert better > worse
    assert balanced.scalar((0.8, -1.0, -1.0), same) == 0


def test_items_are_the_same_whatever_parents_cost() -> None:
    assert TABLE.changes_since(table()) is None
