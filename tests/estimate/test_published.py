"""The published estimators: exact on whole pools, finite on every odd one, with errors that mean what they say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.estimate.evidence import Estimate, Evidence, Floats
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.mixture import parent_abilities
from evomerge.estimate.published import UNDETERMINED, checked, gmp_irt, gp_irt, mp_irt, p_irt

PARENTS = np.array([[1.0, 0.0], [-0.5, 0.8]])
Estimator = Callable[[Evidence, ItemParameters], Estimate]
EVERY: dict[str, Estimator] = {
    "p": p_irt,
    "p, prior": lambda evidence, items: p_irt(evidence, items, prior=1.0, bias=0.02),
    "gp": lambda evidence, items: gp_irt(evidence, items, raw=0.3),
    "mp": lambda evidence, items: mp_irt(evidence, items, PARENTS),
    "mp, simplex": lambda evidence, items: mp_irt(evidence, items, PARENTS, simplex=True),
    "mp, twins": lambda evidence, items: mp_irt(evidence, items, PARENTS[[0, 0]]),
    "mp, twins, simplex": lambda evidence, items: mp_irt(evidence, items, PARENTS[[0, 0]], simplex=True),
    "mp, collinear": lambda evidence, items: mp_irt(evidence, items, np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])),
    "mp, alone": lambda evidence, items: mp_irt(evidence, items, PARENTS[:1]),
    "mp, alone, simplex": lambda evidence, items: mp_irt(evidence, items, PARENTS[:1], simplex=True),
    "mp, at zero": lambda evidence, items: mp_irt(evidence, items, np.zeros((2, 2))),
    "gmp": lambda evidence, items: gmp_irt(evidence, items, PARENTS),
}


def bank(seed: int, count: int, dims: int = 2) -> ItemParameters:
    rng = np.random.default_rng(seed)
    return ItemParameters(rng.normal(0.8, 0.6, (count, dims)), rng.normal(0, 1, count))


def drawn(marks: Floats, places: list[int], *, weights: Floats | None = None, masses: Floats | None = None) -> Evidence:
    count = len(marks)
    return Evidence(
        weights=np.full(count, 1 / count) if weights is None else weights,
        places=np.array(places),
        marks=marks[places],
        probabilities=np.full(len(places), len(places) / count),
        masses=masses,
    )


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), anchored=st.booleans())
def test_a_whole_pool_leaves_nothing_to_estimate(name: str, seed: int, anchored: bool) -> None:
    rng = np.random.default_rng(seed)
    marks, weights, places = rng.random(12), rng.dirichlet(np.ones(12)), rng.permutation(12)
    masses = rng.dirichlet(np.ones(12)) if anchored else None
    found = EVERY[name](drawn(marks, list(places), weights=weights, masses=masses), bank(seed, 12))
    assert found.value == pytest.approx(weights @ marks)
    assert (found.error, found.low, found.high, found.effective) == (0, found.value, found.value, 12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("marks", [np.ones(10), np.zeros(10), np.eye(10)[0], np.linspace(0, 1, 10)])
@pytest.mark.parametrize("places", [[0], [0, 1], list(range(9))])
def test_everything_is_finite(name: str, marks: Floats, places: list[int]) -> None:
    found = EVERY[name](drawn(marks, places), bank(1, 10))
    numbers = [found.value, found.error, found.low, found.high, found.effective, *found.diagnostics.values()]
    assert np.isfinite(numbers).all()
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.error > 0
    assert 0 < found.effective < 10


@pytest.mark.parametrize("name", EVERY)
def test_tasks_of_three_items(name: str) -> None:
    found = EVERY[name](drawn(np.array([1.0, 0.0, 1.0]), [2, 0]), bank(2, 3))
    assert np.isfinite([found.value, found.error]).all()


@pytest.mark.parametrize("mark", [-0.1, 1.5, np.nan, np.inf])
def test_marks_outside_their_range_are_refused(mark: float) -> None:
    for estimator in EVERY.values():
        with pytest.raises(ValueError, match="from 0 to 1"):
            estimator(drawn(np.array([1.0, mark, 0.0]), [0, 1]), bank(1, 3))


def test_what_cannot_be_estimated_is_refused() -> None:
    nothing = drawn(np.ones(3), [])
    nothing = Evidence(nothing.weights, np.zeros(0, int), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="without marks"):
        p_irt(nothing, bank(1, 3))
    with pytest.raises(ValueError, match="at least one parent"):
        mp_irt(drawn(np.ones(3), [0]), bank(1, 3), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="from 0 to 1, not 1.2"):
        gp_irt(drawn(np.ones(3), [0]), bank(1, 3), raw=1.2)


def test_repeated_anchors_are_one_item_with_both_masses() -> None:
    marks = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    twice = drawn(marks, [3, 1, 3], masses=np.array([0.2, 0.5, 0.3]))
    once = drawn(marks, [1, 3], masses=np.array([0.5, 0.5]))
    assert list(checked(twice).places) == [1, 3]
    for name in ("p", "gp", "mp", "gmp"):
        assert EVERY[name](twice, bank(1, 5)).value == pytest.approx(EVERY[name](once, bank(1, 5)).value)


def test_twins_share_lambda_and_tell_as_much_as_one() -> None:
    items, marks = bank(7, 40), (np.arange(40) % 3 > 0).astype(float)
    evidence = drawn(marks, list(range(20)))
    twins, alone = (mp_irt(evidence, items, PARENTS[who]) for who in ([0, 0], [0]))
    assert twins.diagnostics["lambda 1"] == pytest.approx(twins.diagnostics["lambda 2"])
    assert twins.value == pytest.approx(alone.value, abs=1e-6)


def test_all_right_is_said_and_not_taken_for_perfection() -> None:
    items = ItemParameters(np.ones((20, 1)), np.linspace(-1, 1, 20))
    found = p_irt(drawn(np.ones(20), [0, 1, 2]), items)
    assert found.notes == (UNDETERMINED,)
    assert 0.3 < found.value < 1
    assert p_irt(drawn(np.ones(20), [0, 1, 2]), items, prior=1.0).notes == ()


def test_a_model_of_another_kind_is_noticed() -> None:
    items = ItemParameters(np.zeros((50, 1)) + 1e-3, np.full(50, -2.0))
    found = p_irt(drawn(np.zeros(50), list(range(25))), items, prior=1.0)
    assert found.diagnostics["extrapolation"] < -3
    assert any("not what any ability explains" in note for note in found.notes)


def coverage(estimate: Estimator, bias: float = 0.0) -> tuple[float, float, float]:
    """Of a well-calibrated bank: share of intervals that hold the truth, root mean square error, mean error stated."""
    rng = np.random.default_rng(11)
    items = bank(12, 200)
    covered, square, stated = 0, 0.0, 0.0
    for _ in range(300):
        theta = PARENTS.T @ rng.dirichlet(np.ones(2))
        marks = (rng.random(200) < items.probabilities(theta) + bias).astype(float)
        places = rng.choice(200, 25, replace=False)
        found = estimate(drawn(marks, list(places)), items)
        covered += found.low <= marks.mean() <= found.high
        square += (found.value - marks.mean()) ** 2 / 300
        stated += found.error / 300
    return covered / 300, square**0.5, stated


@pytest.mark.parametrize("name", ["p", "p, prior", "gp", "mp", "mp, simplex", "gmp"])
def test_intervals_hold_the_truth(name: str) -> None:
    covered, error, stated = coverage(EVERY[name])
    assert covered > (0.87 if name in ("p", "mp") else 0.92), "maximum likelihood of few items is overconfident"
    assert 0.9 < stated / error < 1.9


def test_a_prior_and_the_simplex_err_less() -> None:
    _, free, _ = coverage(EVERY["mp"])
    _, bound, _ = coverage(EVERY["mp, simplex"])
    _, without, _ = coverage(EVERY["p"])
    _, prior, _ = coverage(EVERY["p, prior"])
    assert bound < 0.75 * free
    assert prior < without


def test_few_items_of_a_good_model_tell_as_much_as_many() -> None:
    items = ItemParameters(np.full((100, 1), 2.5), np.linspace(-4, 4, 100))
    marks = (np.linspace(-4, 4, 100) < 1).astype(float)
    found = p_irt(drawn(marks, list(range(0, 100, 5))), items)
    assert found.effective > 30
    assert p_irt(drawn(marks, list(range(0, 100, 5))), items, bias=0.2).effective < 10


def test_a_skill_that_no_parent_has_is_an_error_and_not_a_surprise() -> None:
    """Parents know next to nothing; the merge gets half: no lambda between them can say so, but the error does."""
    items = ItemParameters(np.full((400, 1), 2.0), np.linspace(2, 6, 400))
    marks = (np.random.default_rng(0).random(400) < items.probabilities(np.array([2.0]))).astype(float)
    parents = np.array([[-1.0], [-0.5]])
    evidence = drawn(marks, list(range(0, 400, 10)))
    bound, free = (mp_irt(evidence, items, parents, simplex=simplex) for simplex in (True, False))
    assert marks.mean() - bound.value > 0.2
    assert bound.error > 0.1
    assert bound.diagnostics["extrapolation"] > 3
    assert bound.notes
    assert abs(free.value - marks.mean()) < 3 * free.error
    assert free.notes == ()


def test_parents_abilities_come_from_what_they_answered() -> None:
    items = bank(3, 300)
    rng = np.random.default_rng(1)
    answers = (rng.random((2, 300)) < items.probabilities(PARENTS)).astype(float)
    answers[0, ::7] = np.nan
    assert parent_abilities(items, answers) == pytest.approx(PARENTS, abs=0.35)
    assert np.isfinite(parent_abilities(items, np.ones((1, 300)))).all()
