"""Items' parameters: recovered from simulated models, finite from hardly any."""

import numpy as np
import pytest
from scipy import special

from evomerge.estimate.evidence import Floats
from evomerge.estimate.fit import fit_items
from evomerge.estimate.irt import ItemParameters


def simulated(models: int, items: int, dims: int, seed: int) -> tuple[Floats, Floats]:
    """Marks and the chances behind them, both (models, items)."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(np.array([1.0, 0.5, 0.0, 0.0, 0.0])[:dims], 0.7, (items, dims))
    chances = special.expit(rng.normal(size=(models, dims)) @ slopes.T - rng.normal(0, 1, items))
    return (rng.random((models, items)) < chances).astype(float), chances


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_what_they_tell_of_pairs_of_items_is_recovered(dims: int) -> None:
    """Slopes are free to rotate; which items go together is not."""
    rng = np.random.default_rng(dims)
    slopes, offsets = rng.normal(0.8, 0.7, (40, dims)), rng.normal(0, 1, 40)
    chances = special.expit(rng.normal(size=(800, dims)) @ slopes.T - offsets)
    found = fit_items((rng.random(chances.shape) < chances).astype(float), dims)
    together, truth = found.slopes @ found.slopes.T, slopes @ slopes.T
    assert np.corrcoef(together.ravel(), truth.ravel())[0, 1] > 0.95
    assert np.sqrt(((found.offsets - offsets) ** 2).mean()) < 0.2


def test_gaps_and_parts_of_marks_are_taken_as_they_are() -> None:
    marks, _ = simulated(300, 30, 1, 1)
    whole = fit_items(marks, 1)
    holes = marks.copy()
    holes[np.random.default_rng(2).random(marks.shape) < 0.3] = np.nan
    holes[7] = np.nan
    with_gaps = fit_items(holes, 1)
    assert np.corrcoef(whole.offsets, with_gaps.offsets)[0, 1] > 0.97
    soft = fit_items(0.8 * marks + 0.1, 1)
    assert np.corrcoef(whole.offsets, soft.offsets)[0, 1] > 0.97
    assert np.abs(soft.slopes).mean() < np.abs(whole.slopes).mean()


@pytest.mark.parametrize("dims", [1, 2, 5])
@pytest.mark.parametrize(
    "marks",
    [
        np.ones((6, 4)),
        np.zeros((6, 4)),
        np.eye(3),
        np.tile([[1.0], [0.0]], (4, 5)),
        np.array([[1.0, np.nan, np.nan], [np.nan, 0.0, np.nan], [np.nan, np.nan, 1.0]]),
    ],
    ids=["all right", "all wrong", "three", "alike", "one mark each"],
)
def test_odd_panels_give_finite_parameters(marks: Floats, dims: int) -> None:
    found = fit_items(marks, dims)
    assert found.slopes.shape == (marks.shape[1], dims)
    assert np.isfinite(found.slopes).all()
    assert np.isfinite(found.offsets).all()


def test_constant_items_stay_within_reason() -> None:
    marks, _ = simulated(100, 30, 1, 3)
    marks[:, 0], marks[:, 1] = 1, 0
    found = fit_items(marks, 1)
    chances = ItemParameters(found.slopes, found.offsets).probabilities(np.zeros(1))
    assert 0.9 < chances[0] < 0.9999
    assert 0.0001 < chances[1] < 0.1


def test_few_models_are_not_over_read() -> None:
    """Eight models on 60 items: new models are predicted better than by the items' means."""
    from evomerge.estimate.irt import abilities

    marks, chances = simulated(208, 60, 1, 4)
    found, new = fit_items(marks[:8], 1), marks[8:]
    who, places = np.nonzero(new[:, ::2] >= 0)
    theta = abilities(found, who, 2 * places, new[:, ::2].ravel(), count=200, prior=1.0).theta
    means = (marks[:8].mean(axis=0) * 8 + 0.5) / 9

    def loss(predicted: Floats) -> float:
        return float(special.xlogy(chances[8:, 1::2], predicted[:, 1::2]).sum()) * -1 - float(
            special.xlogy(1 - chances[8:, 1::2], 1 - predicted[:, 1::2]).sum()
        )

    assert loss(found.probabilities(theta)) < loss(np.tile(means, (200, 1)))


def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    marks, _ = simulated(50, 23, 2, 5)
    whole = fit_items(marks, 2)
    monkeypatch.setattr("evomerge.estimate.fit.BLOCK", 50 * 9 * 4)
    blocks = fit_items(marks, 2)
    assert blocks.slopes == pytest.approx(whole.slopes, abs=1e-9)
    assert blocks.offsets == pytest.approx(whole.offsets, abs=1e-9)
