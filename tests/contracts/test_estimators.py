"""What every estimator keeps to, whatever it is: one suite, run on all kinds a fitness can name."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from estimating import SEARCH_ITEMS, drawn_piece, filled_ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import SpecError
from evomerge.estimate.estimators import aipw, blend, difference, mean, plug_in, weighted
from evomerge.estimate.evidence import Estimate, Evidence, Floats
from evomerge.estimate.expect import Expectation
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.judge import Judge
from evomerge.estimate.mixture import parent_abilities
from evomerge.estimate.published import gmp_irt, gp_irt, mp_irt, p_irt
from evomerge.fitness import ANY_RANGE, EstimatorKind

KINDS: tuple[EstimatorKind, ...] = get_args(EstimatorKind)
UNIT_ONLY = [kind for kind in KINDS if kind not in ANY_RANGE]


def rasch(evidence: Evidence) -> ItemParameters:
    """Item parameters as a search without a calibration has them."""
    predicted = np.clip(evidence.parents.mean(axis=0), 0.05, 0.95)
    return ItemParameters(np.ones((len(predicted), 1)), -np.log(predicted / (1 - predicted)))


def estimate(kind: EstimatorKind, evidence: Evidence) -> Estimate:
    items = rasch(evidence)
    abilities = parent_abilities(items, evidence.parents)
    every: dict[EstimatorKind, Callable[[], Estimate]] = {
        "mean": lambda: mean(evidence),
        "weighted": lambda: weighted(evidence),
        "difference": lambda: difference(evidence),
        "aipw": lambda: aipw(evidence),
        "blend": lambda: blend(evidence, 0.0004),
        "p_irt": lambda: p_irt(evidence, items, prior=1.0),
        "gp_irt": lambda: gp_irt(evidence, items, raw=0.3, prior=1.0),
        "mp_irt": lambda: mp_irt(evidence, items, abilities),
        "gmp_irt": lambda: gmp_irt(evidence, items, abilities),
    }
    return every[kind]()


def hierarchy(*sizes: int) -> Floats:
    """Weights of items whose sub-tasks count alike, whatever their sizes."""
    return np.concatenate([np.full(size, 1 / size / len(sizes)) for size in sizes])


def evidence_of(
    marks: Floats, places: list[int], *, parents: Floats | None = None, weights: Floats | None = None
) -> Evidence:
    count = len(marks)
    answers = np.array([marks.round(), np.roll(marks, 1).round()]) if parents is None else parents
    return Evidence(
        weights=np.full(count, 1 / count) if weights is None else weights,
        places=np.array(places),
        marks=marks[places],
        probabilities=np.full(len(places), len(places) / count),
        predicted=np.clip(answers.mean(axis=0), 0.03, 0.97),
        parents=answers,
    )


def check_sound(found: Estimate, marks: Floats) -> None:
    numbers = [found.value, found.error, found.low, found.high, found.effective, *found.diagnostics.values()]
    assert np.isfinite(numbers).all()
    assert found.low <= found.value <= found.high
    assert found.error >= 0
    assert found.effective > 0


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), sizes=st.sampled_from([(12,), (1, 4, 7), (1, 1, 10), (3,)]))
def test_with_every_item_seen_it_is_the_benchmarks_number(kind: EstimatorKind, seed: int, sizes: tuple[int]) -> None:
    rng = np.random.default_rng(seed)
    weights, marks = hierarchy(*sizes), rng.random(sum(sizes))
    found = estimate(kind, evidence_of(marks, list(rng.permutation(sum(sizes))), weights=weights))
    assert found.value == pytest.approx(weights @ marks)
    assert (found.error, found.low, found.high) == (0, found.value, found.value)


ODD = {
    "all right": np.ones(20),
    "all wrong": np.zeros(20),
    "one right": np.eye(20)[3],
    "shares": np.linspace(0, 1, 20),
    "three items": np.array([1.0, 0.0, 1.0]),
    "two items": np.array([1.0, 0.5]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ODD)
def test_odd_marks_have_finite_estimates(kind: EstimatorKind, name: str) -> None:
    marks = ODD[name]
    for count in {1, 2, len(marks) - 1, len(marks)}:
        for parents in (None, np.array([marks, marks]).round(), marks[None].round()):
            check_sound(estimate(kind, evidence_of(marks, list(range(count)), parents=parents)), marks)


@pytest.mark.parametrize("kind", KINDS)
def test_one_item_strata_are_no_trouble(kind: EstimatorKind) -> None:
    """Items that make up a sub-task alone weigh as much as all the others of another one."""
    marks = np.random.default_rng(0).integers(0, 2, 30).astype(float)
    weights = hierarchy(1, 1, 28)
    check_sound(estimate(kind, evidence_of(marks, [0, *range(5, 15)], weights=weights)), marks)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_neither_the_order_of_the_draw_nor_that_of_the_items_matters(kind: EstimatorKind, seed: int) -> None:
    rng = np.random.default_rng(seed)
    marks = rng.integers(0, 2, 24).astype(float)
    answers = rng.integers(0, 2, (2, 24)).astype(float)
    one = evidence_of(marks, list(rng.permutation(24)[:9]), parents=answers, weights=rng.dirichlet(np.ones(24)))
    expected = estimate(kind, one)
    order, items = rng.permutation(9), rng.permutation(24)
    assert one.predicted is not None
    moved = replace(
        one,
        weights=one.weights[items],
        places=np.argsort(items)[one.places][order],
        marks=one.marks[order],
        probabilities=one.probabilities[order],
        predicted=one.predicted[items],
        parents=answers[:, items],
    )
    found = estimate(kind, moved)
    assert (found.value, found.error) == pytest.approx((expected.value, expected.error), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_better_model_is_worth_more(kind: EstimatorKind) -> None:
    rng = np.random.default_rng(5)
    answers = rng.integers(0, 2, (2, 60)).astype(float)
    good = np.maximum(*answers)
    bad = np.minimum(*answers)
    places = list(rng.permutation(60)[:30])
    values = [estimate(kind, evidence_of(marks, places, parents=answers)).value for marks in (bad, good)]
    assert values[0] < values[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_seen_marks_say_is_near_the_truth(kind: EstimatorKind) -> None:
    """Half of 400 items: within four points, and within four of its errors."""
    rng = np.random.default_rng(6)
    answers = (rng.random((2, 400)) < 0.6).astype(float)
    marks = np.where(rng.random(400) < 0.5, answers[0], answers[1])
    found = estimate(kind, evidence_of(marks, list(rng.permutation(400)[:200]), parents=answers))
    assert abs(found.value - marks.mean()) < min(0.05, 4 * found.error)


@pytest.mark.parametrize("kind", UNIT_ONLY)
def test_marks_that_are_no_shares_are_refused_by_name(kind: EstimatorKind) -> None:
    ledger = filled_ledger(lambda rng, items: rng.normal(-5, 2, items))
    judge = Judge(Expectation(ledger, "sums", "nll"), kind)
    with pytest.raises(SpecError, match=rf"{kind} needs marks in \[0, 1\].*'nll' of task 'sums'.*use aipw"):
        judge.estimate([drawn_piece(ledger, generation=0)])


@pytest.mark.parametrize("kind", ANY_RANGE)
def test_any_marks_will_do_for_the_others(kind: EstimatorKind) -> None:
    """Log-likelihoods, say."""
    ledger = filled_ledger(lambda rng, items: rng.normal(-5, 2, items))
    judge = Judge(Expectation(ledger, "sums", "nll"), kind)
    found = [judge.estimate(list(ledger.of(number))) for number, _ in ledger.candidates()]
    assert len(found) == 8
    assert all(np.isfinite([each.value, each.error, each.low, each.high]).all() for each in found)
    assert np.mean([each.value for each in found]) == pytest.approx(-5, abs=0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_has_an_estimate_by_every_kind(kind: EstimatorKind) -> None:
    ledger = filled_ledger(lambda rng, items: rng.integers(0, 2, items).astype(float))
    judge = Judge(Expectation(ledger, "sums", "nll"), kind)
    found = judge.estimate(list(ledger.of(3)))
    assert 0 < found.error < 0.5
    assert abs(found.value - 0.5) < 0.4
    whole = judge.estimate([drawn_piece(ledger, generation=0, count=SEARCH_ITEMS)])
    assert whole.error == 0


def test_a_plug_in_estimate_is_between_what_is_seen_and_what_is_expected() -> None:
    marks = np.ones(40)
    one = evidence_of(marks, list(range(10)), parents=np.array([np.ones(40), np.zeros(40)]))
    found = plug_in(one)
    assert 0.5 < found.value < 1
    assert found.diagnostics["shift"] > 0
