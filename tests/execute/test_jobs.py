"""Works in pieces: cut the same whoever is there, put together in order, done again, given up."""

import pytest
from toys import ITEMS, Toy, work

from evomerge.execute.ray import pieces_for
from evomerge.execute.ray.jobs import MOST_TRIES, Jobs
from evomerge.execute.ray.shards import shards_of
from evomerge.trial import Failure, Lesson

TOY = Toy()


def jobs(pieces: int, works: int = 1, deaths: int = 2) -> Jobs:
    found = Jobs(deaths)
    for number in range(works):
        found.add(work(number), shards_of(work(number), TOY.table, pieces), TOY.table)
    return found


@pytest.mark.parametrize(
    ("workers", "population", "pieces"),
    [(1, 4, 1), (4, 4, 1), (8, 4, 2), (12, 4, 3), (8, 6, 4), (6, 4, 3), (640, 4, 8)],
)
def test_works_are_cut_so_that_a_population_is_done_soonest(workers: int, population: int, pieces: int) -> None:
    assert pieces_for(workers, population) == pieces

    def rounds(count: int) -> float:
        return -(-population * count // workers) / count

    assert all(rounds(pieces) <= rounds(count) for count in range(1, 9))


def test_a_lesson_is_not_cut() -> None:
    whole = work(0).model_copy(update={"lesson": Lesson(weights={"task": 1.0})})
    assert shards_of(whole, TOY.table, 4) == [whole]
    assert len(shards_of(work(0), TOY.table, 4)) == 4


def test_pieces_are_put_together_in_their_order() -> None:
    hand = jobs(3)
    assert len(hand) == 3
    pieces = [*hand.next(2), *hand.next(5)]
    assert [piece.size for piece in pieces] == [len(work(0).recipe.layers) * count for count in (13, 13, 14)]
    assert hand.answered(pieces[2], TOY(pieces[2].work)) is None
    assert hand.answered(pieces[0], TOY(pieces[0].work)) is None
    whole = hand.answered(pieces[1], TOY(pieces[1].work))
    assert whole is not None
    assert whole.outcome == TOY(work(0)).outcome
    assert whole.worker == "toy+toy+toy"
    assert sum(len(piece.work.draw.places["task"]) for piece in pieces) == ITEMS


def test_a_lost_piece_is_done_again_before_others() -> None:
    hand = jobs(2, works=2)
    first, second = hand.next(2)
    assert hand.lost(first, "it was killed", "here", counts=True) is None
    (again,) = hand.next(1)
    assert again is first
    assert hand.answered(again, TOY(again.work)) is None
    assert hand.answered(second, TOY(second.work)) is not None


def test_a_work_that_workers_die_of_is_given_up_with_all_its_pieces() -> None:
    hand = jobs(3, deaths=2)
    one, other = hand.next(2)
    assert hand.lost(one, "its node was lost", "here", counts=False) is None
    assert hand.lost(other, "it was killed", "here", counts=True) is None
    ended = hand.lost(next(hand.next(1)), "it hung", "there", counts=True)
    assert ended is not None
    assert isinstance(ended.outcome, Failure)
    assert ended.outcome.reason == "3 tries came to nothing, the last: it hung"
    assert len(hand) == 0
    assert hand.answered(one, TOY(one.work)) is None
    assert hand.lost(one, "it was killed", "here", counts=True) is None


def test_a_work_that_takes_its_nodes_along_is_given_up_at_last() -> None:
    hand = jobs(1, deaths=2)
    tries = 0
    while (piece := next(hand.next(1), None)) is not None:
        tries += 1
        ended = hand.lost(piece, "its node was lost", "here", counts=False)
    assert tries == MOST_TRIES
    assert ended is not None
