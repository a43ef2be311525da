"""What was told, as one table, and what a model makes of it."""

import numpy as np
import pytest

from evomerge.learn.features import Features
from evomerge.learn.losses import Loss, Right
from evomerge.learn.model import Model
from evomerge.learn.sheet import Questions, Sheet
from evomerge.space import Gene

REAL = Gene(name="real", low=0, high=1)
KINDS = (
    REAL,
    Gene(name="integer", low=3, high=7, levels=4, kind="integer"),
    Gene(name="binary", low=0, high=1, levels=1, kind="binary"),
    Gene(name="categorical", low=0, high=2, levels=2, kind="categorical"),
)
RAGGED = Questions((Right(golds=(0,)), Right(golds=(1, 2)), Right()), (0.5, 0.25, 0.25))
SHORT = Questions((Right(golds=(1,)),))


def test_levels_of_a_category_are_equally_far_from_one_another() -> None:
    features = Features(KINDS)
    points = features.of(np.array([[0.3, 0.5, 1.0, level] for level in (0.0, 0.5, 1.0)]))
    assert points.shape == (3, 6) and features.owners.tolist() == [0, 1, 2, 3, 3, 3]
    assert features.real.tolist() == features.at.tolist() == [0]
    distances = ((points[:, None] - points) ** 2).sum(-1)
    assert distances == pytest.approx(1 - np.eye(3))


def test_items_come_in_any_order_and_number_and_count_as_they_should() -> None:
    sheet = Sheet([{"a": RAGGED, "b": SHORT}, {}])
    sheet.put(0, (0.1,), (0.5, 7.0), {"a": {2: (-1.0, -2.0, -3.0)}})
    sheet.put(1, (0.2,), (0.6, 8.0), {"a": {0: (-1.0, -2.0), 1: (-1.0, -2.0, -4.0)}, "b": {0: (0.0, -1.0)}})
    sheet.put(0, (0.1,), (0.5, 9.0), {"a": {0: (-2.0, -5.0)}, "b": {0: (-np.inf, 0.0)}})
    known = sheet.known()
    assert sheet.candidates == 2 and sheet.items == 4
    assert known.subjects.tolist() == [0, 1, 0, 0, 0]
    assert known.key.sizes.tolist() == [3, 1, 2, 3, 2]
    assert known.weights == pytest.approx([0.125, 1.0, 0.25, 0.125, 0.5])
    there = ~np.isnan(known.readings)
    assert there.tolist() == [[True] * 6 + [False] * 5, [False] * 3 + [True] * 8]
    assert known.readings[:, 3].tolist() == [9.0, 8.0]
    assert known.readings[0, 4:6].tolist() == [1.5, -1.5]


def test_without_scores_utilities_are_learned_from() -> None:
    sheet = Sheet([{"a": RAGGED}])
    sheet.put(0, (0.1,), (0.5,), {})
    assert sheet.known().readings.tolist() == [[0.5]]
    sheet.put(1, (0.2,), (0.7,), {"a": {0: (0.0, -1.0)}})
    assert sheet.known().readings.shape == (2, 2) and np.isnan(sheet.known().readings[0]).all()


def test_what_does_not_fit_is_refused() -> None:
    sheet = Sheet([{"a": RAGGED}])
    sheet.put(0, (0.1,), (0.5,), {"a": {0: (0.0, -1.0)}})
    with pytest.raises(ValueError, match="item 0 of a has 3 scores, it had 2"):
        sheet.put(1, (0.2,), (0.5,), {"a": {0: (0.0, -1.0, -2.0)}})
    with pytest.raises(ValueError, match="a has no item 3"):
        sheet.put(1, (0.2,), (0.5,), {"a": {3: (0.0, -1.0)}})


@pytest.mark.parametrize("loss", [Loss(), Loss("error", 0.25)])
def test_slopes_of_a_model_are_those_of_finite_differences(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    genes = (REAL, KINDS[3], REAL, KINDS[2])
    sheet = Sheet([{"a": RAGGED, "b": SHORT}, {}])
    for number in range(20):
        genome = (rng.random(), int(rng.integers(3)) / 2, rng.random(), float(rng.integers(2)))
        bent = [-np.exp(np.sin(3 * genome[0] + genome[2] * k) + genome[1]) for k in range(3)]
        answers = {"a": {0: bent[:2], 1: bent, 2: bent}, "b": {0: bent[1:]}}
        sheet.put(number, genome, (0.1, genome[0] ** 2), {k: v for k, v in answers.items() if rng.random() < 0.8})
    model = Model(Features(genes), sheet.known(), None, 12)
    shares = rng.random(len(model.known.weights))
    at = np.array([0.4, 0.5, 0.6, 1.0])
    value, slopes = model.descent(at, loss, shares)
    assert value == pytest.approx(model.values(at[None], loss, shares)[0])
    for place, gene in enumerate((0, 2)):
        step = np.zeros(4)
        step[gene] = 1e-5
        up, down = model.values(np.array([at + step, at - step]), loss, shares)
        assert (up - down) / 2e-5 == pytest.approx(slopes[place], rel=1e-4, abs=1e-7)
