"""Designs: as many items as asked for, each exactly as likely as it says."""

import numpy as np
import pytest
from estimating import filled_ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.estimate import Appraiser, Grader
from evomerge.estimate.designs import (
    Sample,
    inclusion,
    proportional,
    simple_random,
    stratified,
    uncertainty,
)
from evomerge.estimate.evidence import Floats
from evomerge.fitness import EstimatorSpec, Fitness, Objective
from evomerge.schedule import Draws

STRATA = ("a",) * 3 + ("b",) * 20 + ("c",) * 17
DRAWS = 4000


def sizes(seed: int = 1) -> Floats:
    """One item that is certain at ten of forty, one that hardly ever comes."""
    found = np.random.default_rng(seed).uniform(0.2, 2.0, 40)
    found[[5, 17]] = 40.0, 0.02
    return found


DESIGNS = {
    "random": lambda count, rng: simple_random(40, count, rng),
    "stratified": lambda count, rng: stratified(STRATA, count, rng),
    "proportional": lambda count, rng: proportional(sizes(), count, rng),
}


def sampled(name: str, count: int, seed: int) -> Sample:
    return DESIGNS[name](count, np.random.default_rng(seed))


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("count", [1, 7, 10, 39, 40])
def test_a_sample_is_as_large_as_asked_for(name: str, count: int) -> None:
    for seed in range(50):
        found = sampled(name, count, seed)
        assert len(set(found.places.tolist())) == len(found.places) == len(found.probabilities) == count
        assert ((found.probabilities > 0) & (found.probabilities <= 1)).all()


@pytest.mark.parametrize("name", DESIGNS)
def test_items_come_as_often_as_their_probability_says(name: str) -> None:
    counts, stated = np.zeros(40), np.zeros(40)
    for seed in range(DRAWS):
        found = sampled(name, 10, seed)
        counts[found.places] += 1
        stated[found.places] = found.probabilities
    error = np.sqrt(stated * (1 - stated) / DRAWS)
    assert (np.abs(counts / DRAWS - stated) <= 4.5 * error + 1e-9).all()
    if name == "proportional":
        assert counts[5] == DRAWS, "too large for chance"
        assert stated[np.argmax(np.delete(sizes(), 5))] > 3 * stated[17]
    else:
        assert stated == pytest.approx(np.full(40, 0.25))


@pytest.mark.parametrize("name", DESIGNS)
def test_the_first_of_a_sample_are_a_random_part_of_it(name: str) -> None:
    """Rungs rest on it: an item is among the first four of ten with 0.4 times its probability."""
    early, stated = np.zeros(40), np.zeros(40)
    for seed in range(DRAWS):
        found = sampled(name, 10, seed)
        early[found.places[:4]] += 1
        stated[found.places] = found.probabilities
    expected = 0.4 * stated
    assert (np.abs(early / DRAWS - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-9).all()


def test_every_stratum_has_its_share() -> None:
    for seed in range(100):
        found = stratified(STRATA, 10, np.random.default_rng(seed))
        counts = [sum(STRATA[place] == name for place in found.places) for name in "abc"]
        assert all(abs(count - share / 4) < 1 for count, share in zip(counts, (3, 20, 17), strict=True))


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=60), st.data())
def test_probabilities_add_up_and_are_in_proportion(raw: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(raw)))
    found = inclusion(np.array(raw), count)
    assert found.sum() == pytest.approx(count)
    assert ((found > 0) & (found <= 1)).all()
    below = found < 1
    if below.any():
        rates = found[below] / np.array(raw)[below]
        assert rates == pytest.approx(np.full(len(rates), rates[0]))
        assert (np.array(raw)[~below] >= np.array(raw)[below].max() * (1 - 1e-9)).all(), "only the largest are certain"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.integers(0, 99))
def test_what_is_unsure_is_drawn_more_often_and_nothing_never(predicted: list[float], seed: int) -> None:
    weights = np.full(len(predicted), 1 / len(predicted))
    found = uncertainty(weights, np.array(predicted))
    assert (found > 0).all()
    assert found.max() <= 6 * found.min(), "a floor under the surest ones"
    unsure = np.abs(np.array(predicted) - 0.5)
    assert found[np.argmin(unsure)] == found.max()


def draws(seed: int, **spec: object) -> Draws:
    ledger = filled_ledger(lambda rng, items: rng.integers(0, 2, items).astype(float))
    fitness = Fitness(objectives={"x": Objective(task="sums")})
    appraiser = Appraiser(Grader(fitness, ledger.table), ledger)
    return Draws(appraiser, EstimatorSpec.model_validate({"items": 8, **spec}), seed)


@pytest.mark.parametrize("design", ["random", "stratified", "active"])
def test_a_draw_is_a_function_of_seed_and_generation(design: str) -> None:
    one, again, other = draws(1, design=design), draws(1, design=design), draws(2, design=design)
    late = again.draw(2)  # Asked for out of turn.
    assert [one.draw(g) for g in range(3)] == [again.draw(0), again.draw(1), late]
    assert len({str(one.draw(g).places) for g in range(3)}) == 3
    assert one.draw(0) != other.draw(0)


def test_without_rotation_every_generation_has_the_first_draw() -> None:
    fixed = draws(1, rotate=False)
    assert fixed.draw(0).places == fixed.draw(5).places
    assert [fixed.draw(g).generation for g in (0, 5)] == [0, 5]


def test_a_pool_no_larger_than_the_draw_is_put_to_models_whole() -> None:
    assert draws(1, items=40).draw(3).places is None
    assert draws(1, items="all").draw(3).places is None


def test_without_sub_tasks_any_items_may_come_together() -> None:
    """One stratum is a simple random sample: not a few fixed combs along the order of the items."""
    rng = np.random.default_rng(4)
    drawn = {tuple(sorted(stratified([""] * 40, 10, rng).places)) for _ in range(200)}
    assert len(drawn) > 190
