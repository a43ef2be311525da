"""Anchors: distinct, standing for everything, those of clusters that are there to be found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.estimate.anchors import anchors


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 35), st.integers(1, 4), st.integers(0, 1000))
def test_they_are_distinct_and_stand_for_all(items: int, count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, weights = rng.integers(0, 2, (items, width)).astype(float), rng.random(items) + 0.1
    places, masses = anchors(features, count, weights, seed)
    assert len(set(places)) == len(places) == min(count, items)
    assert masses.sum() == pytest.approx(1)
    assert (masses > 0).all()
    again = anchors(features, count, weights, seed)
    assert (again[0] == places).all()
    assert again[1] == pytest.approx(masses)


def test_clusters_are_found_with_their_weights() -> None:
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], [10, 20, 30])
    features = centres[which] + rng.normal(0, 0.1, (60, 2))
    weights = np.where(which == 0, 3.0, 1.0)
    places, masses = anchors(features, 3, weights, 1)
    assert list(which[places]) == [0, 1, 2]
    assert masses == pytest.approx(np.array([30, 20, 30]) / 80)


def test_items_that_no_model_tells_apart_are_still_several() -> None:
    places, masses = anchors(np.ones((8, 5)), 3, np.ones(8), 0)
    assert len(set(places)) == 3
    assert masses.sum() == pytest.approx(1)


def test_all_of_few_items_are_anchors() -> None:
    places, masses = anchors(np.eye(3), 50, np.array([1.0, 1.0, 2.0]), 0)
    assert list(places) == [0, 1, 2]
    assert masses == pytest.approx([0.25, 0.25, 0.5])
    with pytest.raises(ValueError, match="at least one"):
        anchors(np.eye(3), 0, np.ones(3), 0)


def test_their_weighted_mean_is_nearer_than_that_of_random_items() -> None:
    rng = np.random.default_rng(3)
    hard, skill = rng.normal(0, 1.5, 200), rng.normal(0, 1, 160)
    answers = (rng.random((160, 200)) < 1 / (1 + np.exp(-4 * (skill[:, None] - hard)))).astype(float)
    known, new = answers[:100], answers[100:]
    places, masses = anchors(known.T, 20, np.ones(200), 0)
    truth = new.mean(axis=1)
    drawn = [new[:, rng.choice(200, 20, replace=False)].mean(axis=1) for _ in range(20)]
    assert np.abs(new[:, places] @ masses - truth).mean() < 0.6 * np.abs(np.array(drawn) - truth).mean()
