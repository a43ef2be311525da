"""Estimates corrected by a draw: right on average whatever is believed, with intervals that hold what they say."""

from dataclasses import replace

import numpy as np
import pytest
from contingency import estimate_published, expected, laid_out, published_pairs
from estimating import GENES, SEARCH_ITEMS, a_draw, piece_on, table, whole_piece

from evomerge.estimate import Appraiser, Grader, Ledger, Piece
from evomerge.estimate.designs import proportional, simple_random, uncertainty
from evomerge.estimate.estimators import aipw, blend, difference, mean, plug_in, squared_bias
from evomerge.estimate.evidence import Evidence, Floats
from evomerge.estimate.expect import Expectation
from evomerge.estimate.judge import Judge
from evomerge.fitness import Fitness, Objective
from evomerge.trial import Draw

PARENTS, MARKS = laid_out(published_pairs()[32])
ITEMS = len(MARKS)
EQUAL = np.full(ITEMS, 1 / ITEMS)
SENSIBLE = expected(PARENTS)
BELIEFS = {
    "sensible": SENSIBLE,
    "constant": np.full(ITEMS, 0.7),
    "inverted": 1 - SENSIBLE,
    "random": np.random.default_rng(8).uniform(0.01, 0.99, ITEMS),
}


def one_draw(predicted: Floats, count: int, seed: int, weights: Floats = EQUAL) -> Evidence:
    rng = np.random.default_rng((9, seed))
    drawn = proportional(uncertainty(weights, predicted), count, rng)
    return Evidence(weights, drawn.places, MARKS[drawn.places], drawn.probabilities, predicted, PARENTS)


@pytest.mark.parametrize("name", BELIEFS)
@pytest.mark.parametrize("kind", [aipw, difference])
@pytest.mark.parametrize("weighted", [False, True])
def test_whatever_is_believed_it_is_right_on_average(name: str, kind: object, weighted: bool) -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(ITEMS)) if weighted else EQUAL
    assert callable(kind)
    values = [kind(one_draw(BELIEFS[name], 30, seed, weights)).value for seed in range(2000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - weights @ MARKS) <= 3 * error


def test_a_wrong_belief_only_widens_the_interval() -> None:
    found = {name: [aipw(one_draw(belief, 30, seed)) for seed in range(300)] for name, belief in BELIEFS.items()}
    truth = MARKS.mean()
    errors = {name: np.mean([each.error for each in estimates]) for name, estimates in found.items()}
    assert errors["inverted"] > 1.5 * errors["constant"] > 1.5 * errors["sensible"]
    for estimates in found.values():
        assert np.mean([each.low <= truth <= each.high for each in estimates]) > 0.9


@pytest.mark.parametrize("count", [30, 50])
def test_intervals_hold_the_truth_of_published_merges(count: int) -> None:
    found = estimate_published(count, draws=12)["aipw, active"]
    assert 0.92 <= found.coverage <= 0.98


@pytest.mark.parametrize("count", [20, 50])
def test_it_errs_two_fifths_as_much_as_a_random_mean_on_published_merges(count: int) -> None:
    found = estimate_published(count, draws=12)
    assert found["aipw, active"].rmse <= 0.4 * found["random mean"].rmse


def test_a_mean_of_unequal_weights_is_the_weighted_one() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(ITEMS) * 3)
    values = []
    for seed in range(2000):
        drawn = simple_random(ITEMS, 40, np.random.default_rng(seed))
        values.append(mean(Evidence(weights, drawn.places, MARKS[drawn.places], drawn.probabilities)).value)
    assert np.mean(values) == pytest.approx(weights @ MARKS, abs=0.006), "a ratio, right up to 1/n"


def test_the_blend_goes_by_how_wrong_plug_in_estimates_have_been() -> None:
    one = one_draw(SENSIBLE, 30, 0)
    sure, cheap = aipw(one), plug_in(one)
    trusting, doubting, between = blend(one, 0.0), blend(one, 1e3), blend(one, sure.error**2)
    assert trusting.value == pytest.approx(cheap.value)
    assert doubting.value == pytest.approx(sure.value, abs=1e-4)
    assert between.diagnostics["share"] == pytest.approx(0.5)
    assert between.value == pytest.approx((sure.value + cheap.value) / 2)
    assert 0 < trusting.error < 1.5 * sure.error


def test_the_bias_of_plug_in_estimates_is_what_their_gaps_are_beyond_noise() -> None:
    def bias(belief: Floats) -> float:
        drawn = [one_draw(belief, 30, seed) for seed in range(200)]
        return squared_bias([(aipw(each), plug_in(each)) for each in drawn])

    assert bias(SENSIBLE) < 0.0005
    assert bias(1 - SENSIBLE) > 5 * bias(SENSIBLE)
    assert squared_bias([]) == 0


def test_the_blend_errs_less_than_either() -> None:
    drawn = [one_draw(SENSIBLE, 15, seed) for seed in range(400)]
    bias = squared_bias([(aipw(each), plug_in(each)) for each in drawn])
    truth = MARKS.mean()
    errors = [
        np.sqrt(np.mean([(value - truth) ** 2 for value in values]))
        for values in (
            [blend(each, bias).value for each in drawn],
            [aipw(each).value for each in drawn],
        )
    ]
    assert errors[0] < errors[1]


# Of candidates in a ledger.


def known(items: int = 200) -> tuple[Ledger, Floats]:
    """Two parents, and a candidate that is right where either is, mostly."""
    rng = np.random.default_rng(4)
    answers = (rng.random((2, items)) < 0.6).astype(float)
    ledger = Ledger(table(items))
    for number in range(2):
        ledger.add(whole_piece(number, (float(number),) * GENES, answers[number]), is_parent=True)
    return ledger, np.where(rng.random(items) < 0.8, answers.max(axis=0), answers.min(axis=0))


def test_differences_on_common_items_are_surer() -> None:
    """Two models that differ on one item in ten."""
    ledger, marks = known()
    judge = Judge(Expectation(ledger, "sums", "nll"), "aipw")
    other = np.where(np.arange(200) % 10 == 0, 1 - marks, marks)
    truth = marks.mean() - other.mean()
    paired, apart = [], []
    for generation in range(150):
        here = piece_on(a_draw(generation, 40, 200), 9, (0.5,) * GENES, marks)
        there = [piece_on(a_draw(turn, 40, 200), 10, (0.4,) * GENES, other) for turn in (generation, generation + 1)]
        paired.append(judge.difference([here], there[:1]))
        apart.append(judge.difference([here], there[1:]))
    gaps = [np.array([each.value - truth for each in found]) for found in (paired, apart)]
    assert np.sqrt((gaps[0] ** 2).mean()) < 0.7 * np.sqrt((gaps[1] ** 2).mean())
    assert np.mean([each.error for each in paired]) < 0.7 * np.mean([each.error for each in apart])
    for found in (paired, apart):
        assert np.mean([each.low <= truth <= each.high for each in found]) > 0.9


def test_a_difference_to_itself_is_none_and_turns_its_sign() -> None:
    ledger, marks = known()
    judge = Judge(Expectation(ledger, "sums", "nll"), "aipw")
    one, other = (piece_on(a_draw(0, 40, 200), n, (0.5,) * GENES, m) for n, m in ((8, marks), (9, marks[::-1])))
    assert (judge.difference([one], [one]).value, judge.difference([one], [one]).error) == (0, 0)
    there, back = judge.difference([one], [other]), judge.difference([other], [one])
    assert there.value == pytest.approx(-back.value)
    assert there.error == pytest.approx(back.error)


def rung(piece: Piece, draw: Draw, marks: Floats) -> Piece:
    return replace(piece_on(draw, piece.number, piece.genome, marks), draw=draw)


@pytest.mark.parametrize("kind", ["mean", "difference", "aipw"])
def test_pieces_of_a_draw_are_right_on_average(kind: object) -> None:
    """A candidate that was dropped after the first rung, one that went on, and one that was scored again."""
    ledger, marks = known()
    judge = Judge(Expectation(ledger, "sums", "nll"), kind)  # type: ignore[arg-type]
    sizes = np.random.default_rng(2).uniform(0.3, 2, 200)
    values: dict[str, list[float]] = {"dropped": [], "went on": [], "again": []}
    for seed in range(1500):
        drawn = proportional(sizes, 40, np.random.default_rng((6, seed)))
        whole = Draw(
            pool="search",
            places={"sums": tuple(map(int, drawn.places))},
            probabilities={"sums": tuple(map(float, drawn.probabilities))},
            generation=0,
        )
        low, rest = (piece_on(part, 9, (0.5,) * GENES, marks) for part in (whole.piece(0, 15), whole.piece(15, 40)))
        other = piece_on(a_draw(seed + 1, 20, 200), 9, (0.5,) * GENES, marks, again=True)
        values["dropped"].append(judge.estimate([low]).value)
        values["went on"].append(judge.estimate([low, rest]).value)
        values["again"].append(judge.estimate([low, replace(other, draw=other.draw.model_copy(update=LATER))]).value)
    for name, found in values.items():
        slack = 0.004 if kind == "mean" else 0.0  # A ratio, right up to 1/n.
        assert abs(np.mean(found) - marks.mean()) <= 3 * np.std(found) / np.sqrt(1500) + slack, name
    assert np.std(values["went on"]) < np.std(values["dropped"])


LATER = {"generation": 1}


def test_what_is_reported_of_accuracies_is_an_accuracy() -> None:
    """Corrections overshoot, so that they are right on average; nobody is shown an accuracy below 0."""
    ledger = Ledger(table())
    parents = np.repeat([1.0, 0.0], SEARCH_ITEMS // 2)
    for number in range(2):
        ledger.add(whole_piece(number, (float(number),) * GENES, parents), is_parent=True)
    places, chances = tuple(range(16)), (0.4,) * 16
    easy = Draw(pool="search", places={"sums": places}, probabilities={"sums": chances}, generation=0)
    ledger.add(piece_on(easy, 2, (0.5,) * GENES, np.zeros(SEARCH_ITEMS)))
    appraiser = Appraiser(Grader(Fitness(objectives={"sums": Objective(task="sums")}), table()), ledger)
    values, reported = appraiser.values(2), appraiser.reported(2)
    assert values is not None
    assert reported is not None
    assert values["sums"].value < -0.3
    assert reported["sums"][0] == 0
