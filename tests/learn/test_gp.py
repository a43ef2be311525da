"""The process against the textbook's formula, its kernel's slopes against finite differences."""

from dataclasses import replace

import numpy as np
import pytest

from evomerge.learn.gp import CONSTANT, Kernel, Lessons

OWNERS = np.array([0, 1, 1, 2])


def kernel(seed: int = 0) -> Kernel:
    rng = np.random.default_rng(seed)
    found = Kernel.prior(OWNERS, rng.random(4))
    return replace(found, logs=found.logs + 0.3 * rng.standard_normal(len(found.logs)))


def lessons(missing: float, seed: int = 0, points: int = 14, outputs: int = 30) -> Lessons:
    rng = np.random.default_rng(seed)
    where = rng.random((points, 4))
    told = np.sin(3 * where @ rng.standard_normal((4, outputs))) + 0.02 * rng.standard_normal((points, outputs))
    told[rng.random(told.shape) < missing] = np.nan
    return Lessons(where, told)


def covariance(kernel: Kernel, one: np.ndarray, other: np.ndarray) -> float:
    """As a book writes it, a pair of points at a time."""
    linear, curved, _ = np.exp(kernel.logs[:3])
    lengths = np.exp(kernel.logs[3:])[OWNERS]
    near = np.exp(-0.5 * sum(((one - other) / lengths) ** 2))
    return CONSTANT + linear * sum((one - kernel.centre) * (other - kernel.centre)) + curved * near


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_mean_is_the_formula_s_output_by_output(missing: float) -> None:
    told, k = lessons(missing), kernel()
    process = k and told.conditioned(k)
    at = np.random.default_rng(9).random((3, 4))
    means = process.means(at)
    for output in range(told.outputs.shape[1]):
        there = ~np.isnan(told.outputs[:, output])
        x, y = told.points[there], told.outputs[there, output]
        K = np.array([[covariance(k, a, b) for b in x] for a in x]) + np.exp(k.logs[2]) * np.eye(len(x))
        cross = np.array([[covariance(k, a, b) for b in x] for a in at])
        assert means[:, output] == pytest.approx(cross @ np.linalg.solve(K, y), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_slopes_of_the_misfit_are_those_of_finite_differences(missing: float) -> None:
    told, k = lessons(missing), kernel(1)
    _, slopes = told.misfit(k)
    for place in range(len(k.logs)):
        step = np.zeros(len(k.logs))
        step[place] = 1e-5
        up, down = (told.misfit(replace(k, logs=k.logs + sign * step))[0] for sign in (1, -1))
        assert (up - down) / 2e-5 == pytest.approx(slopes[place], rel=1e-5, abs=1e-6)


def test_slopes_of_the_means_are_those_of_finite_differences() -> None:
    told = lessons(0.2)
    process = told.conditioned(kernel())
    rng = np.random.default_rng(3)
    at, weights = rng.random(4), rng.standard_normal(told.outputs.shape[1])
    found = process.pulled(at, weights)
    for place in range(4):
        step = np.zeros(4)
        step[place] = 1e-6
        up, down = (process.means((at + sign * step)[None])[0] @ weights for sign in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(found[place], rel=1e-5, abs=1e-6)


def test_what_was_told_is_expected_and_fitting_makes_it_likelier() -> None:
    told = lessons(0.2, points=40)
    before = Kernel.prior(OWNERS, told.points[0])
    after = told.fitted(before, 12)
    assert told.misfit(after)[0] < told.misfit(before)[0]
    there = ~np.isnan(told.outputs)
    off = (told.conditioned(after).means(told.points) - told.outputs)[there]
    assert np.sqrt(np.mean(off**2)) < 0.1


def test_a_gene_without_effect_gets_a_long_length() -> None:
    rng = np.random.default_rng(5)
    points = rng.random((60, 3))
    outputs = np.sin(6 * points[:, :1] + rng.random(20)) + np.cos(5 * points[:, 1:2] * rng.random(20))
    fitted = Lessons(points, outputs).fitted(Kernel.prior(np.arange(3), np.full(3, 0.5)), 30)
    assert fitted.logs[5] > max(fitted.logs[3:5]) + 0.5


def test_points_told_twice_and_outputs_never_told_do_no_harm() -> None:
    told = lessons(0.0)
    points, outputs = np.repeat(told.points, 2, axis=0), np.repeat(told.outputs, 2, axis=0)
    outputs[:, 3] = np.nan
    twice = Lessons(points, outputs)
    process = twice.conditioned(twice.fitted(kernel(), 12))
    means = process.means(told.points)
    assert np.isfinite(means).all() and not means[:, 3].any()
