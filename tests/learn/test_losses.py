"""Losses against closed forms and torch, slopes against finite differences."""

import math

import numpy as np
import pytest
import torch

from evomerge.learn.losses import SHARPENING, Key, Loss, Right, odds

RIGHTS = (
    Right(golds=(1,)),
    None,
    Right(golds=(0, 2)),
    Right(targets=(0.2, 0.3, 0.5, 0.0)),
    Right(),
    Right(golds=(3,)),
    Right(),
    Right(whole=True),
)
SIZES = (3, 1, 4, 4, 5, 4, 1, 1)
KEY = Key.of(RIGHTS, SIZES)
LOSSES = (*SHARPENING, Loss(temperature=0.5), Loss("error"))


def scores(seed: int, *shape: int) -> np.ndarray:
    return -np.random.default_rng(seed).gamma(1.0, 1.5, (*shape, sum(SIZES)))


@pytest.mark.parametrize("loss", LOSSES)
def test_slopes_are_those_of_finite_differences(loss: Loss) -> None:
    readings = KEY.readings(scores(0))
    _, slopes = KEY.losses(readings, loss)
    owner = np.repeat(np.arange(len(SIZES)), SIZES)
    for place in range(len(readings)):
        step = np.zeros(len(readings))
        step[place] = 1e-6
        up, down = (KEY.losses(readings + sign * step, loss)[0] for sign in (1, -1))
        found = (up - down) / 2e-6
        assert found[owner[place]] == pytest.approx(slopes[place], rel=1e-5, abs=1e-8)
        assert not np.delete(found, owner[place]).any()


def test_readings_move_as_finite_differences_of_them_do() -> None:
    raw, slopes = scores(0), np.random.default_rng(1).normal(size=(sum(SIZES), 2))
    moved = KEY.moved(raw, slopes)
    for column in range(2):
        up, down = (KEY.readings(raw + sign * 1e-6 * slopes[:, column]) for sign in (1, -1))
        np.testing.assert_allclose(moved[:, column], (up - down) / 2e-6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", [-0.01, -3.0, -40.0])
def test_a_whole_answer_costs_what_its_probability_says_and_none_is_hopeless(score: float) -> None:
    key = Key.of([Right(whole=True)], [1])
    readings = key.readings(np.array([score]))
    assert key.losses(readings, Loss())[0][0] == pytest.approx(-score)
    assert key.losses(readings, Loss("error"))[0][0] == pytest.approx(-math.expm1(score))
    assert key.moved(np.array([score]), np.ones((1, 1)))[0, 0] >= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_many_candidates_at_once_are_one_by_one(loss: Loss) -> None:
    readings = KEY.readings(scores(1, 3, 2))
    lost, slopes = KEY.losses(readings, loss)
    assert lost.shape == (3, 2, len(SIZES))
    one, its = KEY.losses(readings[2, 1], loss)
    assert np.array_equal(one, lost[2, 1]) and np.array_equal(its, slopes[2, 1])


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_a_choice_is_a_softmax(temperature: float) -> None:
    raw = scores(2)
    first, several, imitated = torch.tensor(raw[:3]), torch.tensor(raw[4:8]), torch.tensor(raw[8:12])
    entropy = torch.nn.functional.cross_entropy
    lost, _ = KEY.losses(KEY.readings(raw), Loss(temperature=temperature))
    assert lost[0] == pytest.approx(float(entropy(first / temperature, torch.tensor(1))))
    chances = torch.softmax(several / temperature, -1)
    assert lost[2] == pytest.approx(-math.log(chances[0] + chances[2]))
    targets = torch.tensor(RIGHTS[3].targets, dtype=torch.float64)
    assert lost[3] == pytest.approx(float(entropy(imitated / temperature, targets)))
    wrong, _ = KEY.losses(KEY.readings(raw), Loss("error", temperature))
    assert wrong[2] == pytest.approx(1 - float(chances[0] + chances[2]))
    assert wrong[3] == pytest.approx(1 - float(targets @ torch.softmax(imitated / temperature, -1)))


def test_an_answer_is_the_product_of_its_tokens() -> None:
    raw = scores(3)
    tokens = raw[12:17]
    readings = KEY.readings(raw)
    assert KEY.losses(readings, Loss())[0][4] == pytest.approx(-tokens.sum(), rel=1e-3)
    assert KEY.losses(readings, Loss("error"))[0][4] == pytest.approx(1 - math.exp(tokens.sum()), rel=1e-3)


def test_at_a_low_temperature_the_error_is_what_is_counted() -> None:
    key = Key.of([Right(golds=(1,)), Right(golds=(0,)), Right(), Right()], [2, 2, 2, 2])
    raw = np.array([-3.0, -2.0, -3.0, -2.0, math.log(0.6), math.log(0.9), math.log(0.4), math.log(0.9)])
    lost, _ = key.losses(key.readings(raw), Loss("error", 0.01))
    assert lost == pytest.approx([0, 1, 0, 1], abs=1e-6)


def test_a_utility_is_lost_where_it_is_low() -> None:
    lost, slopes = KEY.losses(KEY.readings(scores(4)), Loss("error", 0.1))
    assert lost[1] == -scores(4)[3] and slopes[3] == -1


def test_nothing_overflows() -> None:
    raw = np.array(
        [0.0, -1e5, -1e5, 3.0, -1e5, 0.0, -1e5, -1e5, 0, 0, 0, 0, -1e5, 0, 0, 0, 0, 0, 0, 0, -1e5, 0.0, -1e5]
    )
    for loss in LOSSES:
        lost, slopes = KEY.losses(KEY.readings(raw), loss)
        assert np.isfinite(lost).all() and np.isfinite(slopes).all()
    assert np.isfinite(odds(np.array([0.0, -1e9]))).all()


@pytest.mark.parametrize("right", [Right(golds=(3,)), Right(golds=(-1,)), Right(targets=(0.5, 0.5))])
def test_a_key_that_does_not_fit_is_refused(right: Right) -> None:
    with pytest.raises(ValueError, match="3 scores"):
        Key.of([right], [3])
