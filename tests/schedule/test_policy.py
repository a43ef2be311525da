"""Who gets more items: the better part of every rung, and elites that may have been lucky."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from estimating import GENES, piece_on, table, whole_piece

from evomerge.estimate import Appraiser, Grader, Ledger
from evomerge.estimate.evidence import Floats
from evomerge.fitness import Bounds, EstimatorSpec, Fitness, Objective
from evomerge.schedule import Draws, More, Policy

ITEMS = 120
DRAWN = 40


class Search:
    """Candidates of known worth, scored as the policy says."""

    def __init__(self, objectives: int = 1, direction: str = "max", **spec: object) -> None:
        estimator = EstimatorSpec.model_validate({"items": DRAWN, "design": "random", **spec})
        self.ledger = Ledger(table(ITEMS))
        for number in range(2):
            answers = np.random.default_rng(number).integers(0, 2, ITEMS).astype(float)
            self.ledger.add(whole_piece(number, (float(number),) * GENES, answers), is_parent=True)
        labels = {f"x{i}": Objective(task="sums", direction=direction) for i in range(objectives)}  # type: ignore[arg-type]
        fitness = Fitness(objectives=labels, estimator=estimator)
        self.appraiser = Appraiser(Grader(fitness, self.ledger.table), self.ledger)
        self.draws = Draws(self.appraiser, estimator, 0)
        self.policy = Policy(self.appraiser, self.draws, estimator, _first)
        self.marks: dict[int, Floats] = {}

    def add(self, number: int, worth: float, generation: int) -> None:
        """A new candidate that solves the first `worth` of the items in some fixed order, on its first draw."""
        order = np.random.default_rng(11).permutation(ITEMS)
        self.marks[number] = (order < worth * ITEMS).astype(float)
        draw = self.policy.first(generation)
        self.ledger.add(piece_on(draw, number, (number / 50,) * GENES, self.marks[number]))

    def score(self, wanted: Sequence[More]) -> None:
        for more in wanted:
            again = more.purpose == "refresh"
            genome = (more.number / 50,) * GENES
            self.ledger.add(piece_on(more.draw, more.number, genome, self.marks[more.number], again=again))

    def seen(self, number: int, generation: int) -> int:
        return sum(piece.size() for piece in self.ledger.of(number) if piece.draw.generation == generation)


def _first(utilities: Sequence[float], bounds: Bounds) -> float:
    return utilities[0]


WORTHS = {number: 0.1 * (number - 2) + 0.1 for number in range(2, 10)}
"""Eight candidates from 0.1 to 0.8."""


def halved(**spec: object) -> Search:
    search = Search(rungs=(8, 16), refresh=0, kind="difference", **spec)
    for number, worth in WORTHS.items():
        search.add(number, worth, 0)
    while wanted := search.policy.more(list(WORTHS), 0):
        assert {more.purpose for more in wanted} == {"search"}
        assert len({more.number for more in wanted}) == len(wanted)
        search.score(wanted)
    return search


def size(more: More) -> int:
    assert more.draw.places is not None
    return len(more.draw.places["sums"])


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_the_best_share_of_every_rung_goes_on(keep: float) -> None:
    search = halved(keep=keep)
    sizes = sorted((search.seen(number, 0) for number in WORTHS), reverse=True)
    second = math.ceil(keep * 8)
    third = math.ceil(keep * second)
    assert sizes == [DRAWN] * third + [16] * (second - third) + [8] * (8 - second)
    assert search.seen(9, 0) == DRAWN, "the best of all went all the way"
    assert search.seen(2, 0) == 8


def test_rungs_of_a_draw_are_its_items_one_after_another() -> None:
    search = halved()
    whole = search.draws.draw(0)
    assert whole.places is not None
    pieces = search.ledger.of(9)
    assert [piece.size() for piece in pieces] == [8, 8, DRAWN - 16]
    assert sum((piece.draw.places["sums"] for piece in pieces if piece.draw.places), ()) == whole.places["sums"]


def test_what_is_told_is_the_estimate_from_the_highest_rung() -> None:
    search = halved()
    found = {o.number: o for o in search.appraiser.observe(list(WORTHS))}
    best = found[9]
    assert best.utilities is not None
    drawn = search.draws.draw(0)
    assert drawn.places is not None
    whole = piece_on(drawn, 9, (9 / 50,) * GENES, search.marks[9])
    fresh = Appraiser(search.appraiser.grader, search.ledger)
    assert best.utilities == pytest.approx(fresh.utilities([whole]), abs=1e-6)
    assert best.errors[0] < found[2].errors[0]


def test_who_was_dropped_is_told_to_be_no_better_than_who_went_on() -> None:
    """Of three items somebody is always lucky."""
    search = Search(rungs=(3, 10), refresh=0, kind="mean")
    numbers = list(range(10, 26))
    for number in numbers:
        search.add(number, 0.5 + 0.01 * (number % 5), 0)
    while wanted := search.policy.more(numbers, 0):
        search.score(wanted)
    told = {o.number: o.utilities[0] for o in search.appraiser.observe(numbers) if o.utilities}
    own = {number: search.appraiser.utilities(search.ledger.of(number))[0] for number in numbers}
    groups = [[n for n in numbers if search.seen(n, 0) == size] for size in (3, 10, DRAWN)]
    for lower, higher in itertools.pairwise(groups):
        assert max(told[n] for n in lower) <= min(told[n] for n in higher)
    assert [told[n] for n in groups[-1]] == [own[n] for n in groups[-1]]
    assert told[groups[0][0]] < own[groups[0][0]], "there was something to put right"
    alone = search.appraiser.observe(groups[0][:1])[0].utilities
    assert alone == (own[groups[0][0]],), "of nobody else, nothing is known"


def test_the_next_rung_waits_for_everybody() -> None:
    """As after a kill between two candidates' second rungs: the one that is there already is not the best of one."""
    search = Search(rungs=(8, 16), refresh=0, kind="difference")
    for number, worth in WORTHS.items():
        search.add(number, worth, 0)
    wanted = search.policy.more(list(WORTHS), 0)
    assert len(wanted) == 4
    search.score(wanted[:1])
    assert search.policy.more(list(WORTHS), 0) == wanted[1:]
    search.score(wanted[1:])
    assert [size(more) for more in search.policy.more(list(WORTHS), 0)] == [DRAWN - 16] * 2


def test_recipes_outside_the_space_take_nobodys_place() -> None:
    search = Search(rungs=(8,), refresh=0, kind="difference")
    for number in range(30, 38):
        search.ledger.add(piece_on(search.policy.first(0), number, (), np.ones(ITEMS)))
    for number in range(40, 48):
        search.add(number, 0.01 * number, 0)
    assert len(search.policy.more(list(range(40, 48)), 0)) == 4


def test_with_lower_being_better_the_lowest_go_on() -> None:
    search = halved(direction="min")
    assert search.seen(2, 0) == DRAWN
    assert search.seen(9, 0) == 8


def test_a_candidate_that_comes_late_is_measured_against_its_draw() -> None:
    """Where an optimiser takes results one by one."""
    search = Search(rungs=(8,), refresh=0, kind="difference")
    for number, worth in enumerate((0.8, 0.7, 0.6), start=10):
        search.add(number, worth, 0)
        search.score(search.policy.more([number], 0))
    search.add(13, 0.1, 0)
    assert search.policy.more([13], 0) == []
    search.add(14, 1.0, 0)
    assert [more.number for more in search.policy.more([14], 0)] == [14]


def test_failures_do_not_climb() -> None:
    search = Search(rungs=(8,), refresh=0)
    for number, worth in WORTHS.items():
        search.add(number, worth, 0)
    draw = search.policy.first(0)
    piece = piece_on(draw, 30, (0.6,) * GENES, np.ones(ITEMS))
    search.ledger.add(replace(piece, marks=None))
    wanted = search.policy.more([*WORTHS, 30], 0)
    assert len(wanted) == 4
    assert 30 not in {more.number for more in wanted}


def generations(search: Search, count: int) -> list[list[More]]:
    """Eight new candidates a draw, of worths that do not differ much; what was refreshed on each."""
    rng = np.random.default_rng(5)
    refreshed = []
    for generation in range(count):
        numbers = [10 + generation * 8 + i for i in range(8)]
        for number in numbers:
            search.add(number, float(rng.uniform(0.3, 0.7)), generation)
        found: list[More] = []
        while wanted := search.policy.more(numbers, generation):
            found += wanted
            search.score(wanted)
            assert len(found) < 50, "it goes on for ever"
        refreshed.append(found)
    return refreshed


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_elites_get_their_share_of_the_items(share: float) -> None:
    search = Search(refresh=share)
    refreshed = generations(search, 10)
    again = sum(piece.size() for piece in search.ledger.pieces if piece.again)
    others = sum(piece.size() for piece in search.ledger.pieces if not piece.again)
    assert again == DRAWN * sum(map(len, refreshed)) > 0
    assert share * others - 2 * DRAWN <= again <= share * others
    assert {more.purpose for found in refreshed for more in found} == {"refresh"}


def test_nobody_is_refreshed_on_items_it_has_seen() -> None:
    search = Search(refresh=0.5)
    for generation, found in enumerate(generations(search, 8)):
        assert len({more.number for more in found}) == len(found)
        assert {more.draw.generation for more in found} <= {generation}
        assert all(more.number < 10 + generation * 8 for more in found), "its own draw is known to a new candidate"
    seen = [
        [piece.draw.generation for piece in pieces if piece.draw.places is not None]
        for _, pieces in search.ledger.candidates()
    ]
    assert all(len(set(draws)) == len(draws) for draws in seen)


def test_those_that_may_be_the_best_are_refreshed() -> None:
    search = Search(refresh=0.2)
    for number, worth in ((10, 0.9), (11, 0.88), (12, 0.2), (13, 0.25), (14, 0.3), (15, 0.1), (16, 0.15), (17, 0.2)):
        search.add(number, worth, 0)
    for number in range(18, 26):
        search.add(number, 0.2, 1)
    found = {more.number for more in search.policy.more(list(range(18, 26)), 1)}
    assert found == {10, 11}


def test_a_refresh_that_fails_is_not_tried_again_on_the_same_draw() -> None:
    search = Search(refresh=0.2)
    for generation in range(2):
        for number in range(10 + 8 * generation, 18 + 8 * generation):
            search.add(number, 0.5 + number / 100, generation)
    tried: list[int] = []
    while wanted := search.policy.more(list(range(18, 26)), 1):
        for more in wanted:
            tried.append(more.number)
            piece = piece_on(more.draw, more.number, (more.number / 50,) * GENES, np.ones(ITEMS), again=True)
            search.ledger.add(replace(piece, marks=None))
        assert len(tried) < 30
    assert len(set(tried)) == len(tried)


def test_without_rotation_nobody_is_refreshed() -> None:
    search = Search(refresh=0.3, rotate=False)
    assert not any(generations(search, 4))


def test_of_several_objectives_the_front_is_refreshed() -> None:
    search = Search(objectives=2, refresh=0.3)
    refreshed = generations(search, 6)
    assert sum(map(len, refreshed)) > 2
