"""Response models: what they start from, what they learn, and what they must not know."""

from dataclasses import replace

import numpy as np
import pytest
from contingency import published_pairs
from estimating import GENES, a_draw, filled_ledger, piece_on, table, whole_piece
from scipy.special import expit

from evomerge.estimate import Ledger
from evomerge.estimate.estimators import logit
from evomerge.estimate.evidence import Floats
from evomerge.estimate.expect import Expectation
from evomerge.estimate.history import History
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.models import genotype_shift, parents_pattern, sibling_history, stacked
from evomerge.values import Genome

TWO = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])


def history(parents: Floats, marks: Floats, genomes: Floats, *, unit: bool = True, ages: float = 0.0) -> History:
    """Candidates (candidates, genes) that were each put to all items, and got marks (candidates, items)."""
    count, items = marks.shape
    return History(
        items=items,
        parents=parents,
        genomes=genomes,
        candidates=np.repeat(np.arange(count), items),
        places=np.tile(np.arange(items), count),
        marks=marks.ravel(),
        ages=np.full(marks.size, ages),
        unit=unit,
    )


def nobody(parents: Floats, *, unit: bool = True) -> History:
    return history(parents, np.empty((0, parents.shape[1])), np.empty((0, GENES)), unit=unit)


def test_before_anything_is_seen_merges_do_what_published_ones_did() -> None:
    found = parents_pattern(nobody(TWO)).marks
    counts = sum(published_pairs())
    published = counts[:, 1] / counts.sum(axis=1)
    assert found[[0, 3]] == pytest.approx(published[[0, 3]], abs=0.01)
    assert found[1] == found[2] == pytest.approx(published[1:3].mean(), abs=0.03)


def test_of_three_parents_the_more_solve_an_item_the_likelier_it_is() -> None:
    answers = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=float)
    assert (np.diff(parents_pattern(nobody(answers)).marks) > 0.1).all()


def test_without_parents_everything_is_a_toss_up_until_something_is_known() -> None:
    none = np.empty((0, 4))
    assert parents_pattern(nobody(none)).marks == pytest.approx(np.full(4, 0.5))
    seen = history(none, np.ones((9, 4)), np.zeros((9, GENES)))
    assert parents_pattern(seen).marks.min() > 0.9


def test_the_pattern_learns_from_this_search() -> None:
    """Whatever published merges did, these are right where the first parent is."""
    parents = np.tile(TWO, (1, 10))
    found = parents_pattern(history(parents, np.tile(parents[:1], (6, 1)), np.zeros((6, GENES)))).marks
    assert found[2] > 0.9
    assert found[1] < 0.1


def test_siblings_come_to_speak_for_an_item() -> None:
    """However odd it is for its pattern."""
    parents = np.tile(TWO, (1, 10))
    marks = parents[:1].copy()
    marks[0, 3] = 0.0  # Both parents solve it.
    guesses = []
    for count in (1, 4, 20):
        seen = history(parents, np.tile(marks, (count, 1)), np.zeros((count, GENES)))
        guesses.append(sibling_history(seen, parents_pattern(seen)).marks[3])
    assert guesses[0] > guesses[1] > guesses[2]
    assert guesses[2] < 0.12


def test_old_answers_count_less() -> None:
    none = nobody(TWO)
    prior = parents_pattern(none)
    marks = 1 - TWO[:1].round()
    fresh, old = (sibling_history(history(TWO, marks, np.zeros((1, GENES)), ages=age), prior) for age in (0.0, 9.0))
    assert np.all(np.abs(fresh.marks - prior.marks) > np.abs(old.marks - prior.marks))


def sloped(count: int = 60, items: int = 30) -> tuple[History, Floats]:
    """Candidates of whom those with a large first gene solve more; and how hard the items are."""
    rng = np.random.default_rng(2)
    genomes = rng.random((count, GENES))
    hardness = rng.normal(0, 1, items)
    chances = expit(3 * (genomes[:, :1] - 0.5) - hardness)
    parents = (rng.random((2, items)) < expit(-hardness)).astype(float)
    return history(parents, (rng.random((count, items)) < chances).astype(float), genomes), hardness


def test_neighbours_in_the_space_foretell_a_candidate() -> None:
    seen, hardness = sloped()
    siblings = sibling_history(seen, parents_pattern(seen))
    model = genotype_shift(seen, siblings)
    for gene in (0.1, 0.5, 0.9):
        truth = expit(3 * (gene - 0.5) - hardness)
        found = model.predict((gene, 0.5, 0.5))
        assert abs(found.mean() - truth.mean()) < 0.07
    gap = model.predict((0.9, 0.5, 0.5)).mean() - model.predict((0.1, 0.5, 0.5)).mean()
    assert gap > 0.3, "which siblings alone do not know of"
    assert siblings.predict((0.9, 0.5, 0.5)) is siblings.predict((0.1, 0.5, 0.5))


def test_calibrated_items_foretell_by_ability() -> None:
    seen, hardness = sloped()
    stack = stacked(seen, (np.empty((0, 0)), np.empty(0)), ItemParameters(np.ones((30, 1)), hardness))
    low, high = (stack.models[3].predict((gene, 0.5, 0.5)) for gene in (0.1, 0.9))
    assert high.mean() - low.mean() > 0.3
    assert np.corrcoef(high, -hardness)[0, 1] > 0.95


def test_the_stack_prefers_the_model_that_foretold() -> None:
    rng = np.random.default_rng(1)
    came = rng.integers(0, 2, 800).astype(float)
    noise = rng.random(800)
    for best in range(3):
        guessed = np.stack([came * 0.8 + 0.1 if model == best else noise for model in range(3)])
        shares = stacked(nobody(TWO), (guessed, came)).shares
        assert np.argmax(shares) == best
        assert shares[best] > 0.8
        assert shares.sum() == pytest.approx(1)
        assert (shares >= 0).all()


def test_no_expectation_is_certain() -> None:
    sure = history(TWO, np.tile(TWO[:1], (50, 1)), np.random.default_rng(0).random((50, GENES)))
    found = stacked(sure, (np.empty((0, 0)), np.empty(0))).predict((0.5,) * GENES)
    assert 0.004 < found.min() < 0.05
    assert 0.95 < found.max() < 0.996


def test_marks_of_any_range_are_expected_in_their_own_unit() -> None:
    """Log-likelihoods about -5: the parents' items, and a shift that grows with the first gene."""
    rng = np.random.default_rng(3)
    parents = rng.normal(-5, 2, (2, 40))
    genomes = rng.random((40, GENES))
    marks = parents.mean(axis=0) + 2 * genomes[:, :1] + rng.normal(0, 0.3, (40, 40))
    seen = history(parents, marks, genomes, unit=False)
    stack = stacked(seen, (np.empty((0, 0)), np.empty(0)))
    for gene in (0.2, 0.8):
        found = stack.models[2].predict((gene, 0.5, 0.5))
        assert found.mean() == pytest.approx(parents.mean() + 2 * gene, abs=0.25)
        assert np.corrcoef(found, parents.mean(axis=0))[0, 1] > 0.95
    assert stack.predict((0.5, 0.5, 0.5)).min() < -6


def test_real_marks_without_history_are_the_parents_means() -> None:
    parents = np.array([[-3.0, 7.0], [-5.0, 9.0]])
    assert parents_pattern(nobody(parents, unit=False)).marks == pytest.approx([-4.0, 8.0])


# What was known before a draw. That estimates are right on average rests on it.


def binary(rng: np.random.Generator, items: int) -> Floats:
    return rng.integers(0, 2, items).astype(float)


def predictions(ledger: Ledger, generation: int, genome: Genome = (0.3,) * GENES) -> Floats:
    return Expectation(ledger, "sums", "nll").predict(genome, generation)


def test_what_a_draw_showed_does_not_change_what_was_expected_of_it() -> None:
    before = filled_ledger(binary)
    expected = [predictions(before, generation) for generation in range(3)]
    sizes = [Expectation(before, "sums", "nll").sizes(generation, np.full(40, 1 / 40)) for generation in range(3)]
    for again in (False, True):
        after = filled_ledger(binary)
        for number in range(20, 28):
            after.add(piece_on(a_draw(2, 16), number, (0.3,) * GENES, np.ones(40), again=again))
        assert [predictions(after, generation).tolist() for generation in range(3)] == [e.tolist() for e in expected]
        found = [Expectation(after, "sums", "nll").sizes(generation, np.full(40, 1 / 40)) for generation in range(3)]
        assert np.array_equal(found, sizes)
        assert not np.array_equal(predictions(after, 3), predictions(before, 3)), "the next one has learnt from it"


def test_of_items_that_never_change_only_the_parents_are_known_before() -> None:
    """What came of earlier draws came of the very same items: a prediction that knew it would be no prediction."""
    ledger = filled_ledger(binary)
    fixed = Expectation(ledger, "sums", "nll", rotates=False)
    for generation in (1, 2, 5):
        assert np.array_equal(fixed.predict((0.3,) * GENES, generation), fixed.predict((0.3,) * GENES, 0))
        weights = np.full(40, 1 / 40)
        assert np.array_equal(fixed.sizes(generation, weights), fixed.sizes(0, weights))
    assert not np.array_equal(predictions(ledger, 2), predictions(ledger, 0))


def test_what_is_expected_does_not_depend_on_when_it_is_asked() -> None:
    ledger = filled_ledger(binary)
    asked = Expectation(ledger, "sums", "nll")
    early = [asked.predict((0.3,) * GENES, generation) for generation in range(2)]
    for number in range(20, 28):
        ledger.add(piece_on(a_draw(2, 16), number, (number / 30,) * GENES, np.ones(40)))
    late = asked.predict((0.3,) * GENES, 3)
    fresh = Expectation(ledger, "sums", "nll")
    assert np.array_equal(fresh.predict((0.3,) * GENES, 3), late)
    assert np.array_equal([fresh.predict((0.3,) * GENES, generation) for generation in range(2)], early)


def test_failures_teach_nothing() -> None:
    ledger, other = filled_ledger(binary), filled_ledger(binary)
    ledger.add(replace(piece_on(a_draw(2, 16), 30, (0.3,) * GENES, np.ones(40)), marks=None))
    assert np.array_equal(predictions(ledger, 3), predictions(other, 3))


def test_a_failed_parent_is_done_without() -> None:
    ledger = Ledger(table())
    ledger.add(whole_piece(0, (0.0,) * GENES, np.ones(40)), is_parent=True)
    ledger.add(replace(whole_piece(1, (1.0,) * GENES, np.ones(40)), marks=None), is_parent=True)
    found = predictions(ledger, 0)
    assert found == pytest.approx(np.full(40, found[0]))
    assert found[0] > 0.9


def test_log_odds_of_certainties_are_finite() -> None:
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
