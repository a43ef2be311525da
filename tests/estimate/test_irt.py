"""Abilities: the maximum they claim to be, the cases that have none, and the speed of many at once."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from evomerge.estimate.evidence import Floats
from evomerge.estimate.irt import ItemParameters, abilities, ability


def bank(seed: int, count: int, dims: int) -> ItemParameters:
    rng = np.random.default_rng(seed)
    return ItemParameters(rng.normal(0.8, 0.6, (count, dims)), rng.normal(0, 1.2, count))


def loss(theta: Floats, items: ItemParameters, marks: Floats, prior: float) -> float:
    logits = items.slopes @ theta - items.offsets
    return float((np.logaddexp(0, logits) - marks * logits).sum() + prior / 2 * theta @ theta)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.3, 1.0, 4.0]))
def test_it_is_the_most_likely_ability(seed: int, dims: int, prior: float) -> None:
    items, marks = bank(seed, 25, dims), np.random.default_rng(seed).random(25)
    found = ability(items, np.arange(25), marks, prior=prior)
    other = optimize.minimize(loss, np.zeros(dims), (items, marks, prior), method="BFGS")
    assert loss(found.theta, items, marks, prior) <= other.fun + 1e-9
    chances = items.probabilities(found.theta)
    gradient = items.slopes.T @ (marks - chances) - prior * found.theta
    assert gradient == pytest.approx(0, abs=1e-7)
    information = (items.slopes * (chances * (1 - chances))[:, None]).T @ items.slopes + prior * np.eye(dims)
    assert found.covariance == pytest.approx(np.linalg.inv(information), rel=1e-6)


@pytest.mark.parametrize(
    ("items", "marks"),
    [
        (ItemParameters(np.ones((5, 1)), np.arange(5.0)), np.ones(5)),
        (ItemParameters(np.ones((5, 1)), np.arange(5.0)), np.zeros(5)),
        (ItemParameters(np.array([[1.0], [-1.0], [2.0]]), np.zeros(3)), np.array([1.0, 0.0, 1.0])),
        (ItemParameters(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.zeros(3)), np.array([1.0, 1.0, 0.0])),
        (ItemParameters(np.eye(5)[:3], np.zeros(3)), np.array([0.5, 0.4, 0.6])),
        (ItemParameters(np.zeros((4, 2)), np.zeros(4)), np.array([1.0, 0.0, 1.0, 0.0])),
    ],
    ids=["all right", "all wrong", "separable by sign", "separable", "fewer items than dimensions", "no slopes"],
)
def test_without_a_maximum_a_unit_prior_is_used_and_told(items: ItemParameters, marks: Floats) -> None:
    places = np.arange(len(marks))
    found = ability(items, places, marks, prior=0)
    assert found.undetermined
    assert found.theta == pytest.approx(ability(items, places, marks, prior=1.0).theta)
    assert np.isfinite(found.theta).all()
    assert np.isfinite(found.covariance).all()


def test_large_but_finite_maxima_are_found() -> None:
    items = ItemParameters(np.ones((40, 1)), np.full(40, 6.0))
    marks = np.array([0.0] + [1.0] * 39)
    found = ability(items, np.arange(40), marks, prior=0)
    assert not found.undetermined
    assert found.theta[0] == pytest.approx(6 + np.log(39))


def test_steep_items_do_not_overshoot() -> None:
    items = ItemParameters(np.full((6, 1), 40.0), 40 * np.array([3.0, 3.1, 3.2, 3.3, 3.4, 3.5]))
    found = ability(items, np.arange(6), np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]), prior=0)
    assert 3.1 < found.theta[0] < 3.4
    assert not found.undetermined


def test_many_are_each_alone() -> None:
    items = bank(3, 60, 3)
    rng = np.random.default_rng(4)
    candidates = rng.permutation(np.repeat([0, 1, 3, 4], [30, 5, 60, 2]))
    places, marks = rng.integers(0, 60, len(candidates)), rng.integers(0, 2, len(candidates)).astype(float)
    for prior in (0.0, 1.0):
        found = abilities(items, candidates, places, marks, count=6, prior=prior)
        for candidate in range(6):
            own = candidates == candidate
            alone = ability(items, places[own], marks[own], prior=prior)
            assert found.theta[candidate] == pytest.approx(alone.theta, abs=1e-8)
            assert found.covariance[candidate] == pytest.approx(alone.covariance, abs=1e-8)
            assert found.undetermined[candidate] == alone.undetermined
        assert found.theta[2] == pytest.approx(0), "no marks, no opinion"
        assert found.undetermined[2] == (prior == 0)


def test_five_hundred_candidates_take_a_blink() -> None:
    items, rng = bank(5, 1000, 5), np.random.default_rng(6)
    candidates, places = np.repeat(np.arange(500), 50), rng.integers(0, 1000, 25_000)
    marks = (rng.random(25_000) < items.probabilities(rng.normal(size=5))[places]).astype(float)
    times = []
    for _ in range(3):
        started = time.process_time()
        abilities(items, candidates, places, marks, count=500, prior=1.0)
        times.append(time.process_time() - started)
    assert min(times) < 0.2
