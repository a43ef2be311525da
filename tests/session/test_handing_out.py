"""What a process hands out, and when."""

from pathlib import Path

import pytest
from simulated import Plan, begin, make_world

from evomerge.errors import Interrupted
from evomerge.events import Workers
from evomerge.execute import News
from evomerge.fitness import EstimatorSpec
from evomerge.session import Session
from evomerge.space import fixed_recipes
from evomerge.spec import Budget
from evomerge.trial import Candidate, Draw, Evaluation, Failure, Work


class Slots:
    """So many workers, who fail at everything, one after another."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.begun: list[int] = []
        self.news: list[News] = []
        self.is_away = False
        self._works: list[Work] = []

    def submit(self, work: Work) -> None:
        self.free -= 1
        self.begun.append(work.id)
        self._works.append(work)

    def wait(self, timeout: float | None) -> list[News]:
        if self.is_away:
            return self.news
        work = self._works.pop(0)
        self.free += 1
        failure = Failure(stage="score", reason="they always do")
        return [*self.news, Evaluation(work=work.id, number=work.number, outcome=failure)]

    def close(self) -> None:
        self._works.clear()


def session_of(folder: Path, executor: Slots, *, ahead: bool) -> Session:
    world = {"task": make_world(28, 0, search=40)}
    plan = Plan(EstimatorSpec(kind="mean"), Budget(evaluations=24), seed=1)
    return Session(begin(world, plan, folder), executor, ahead=ahead)


def hand_out(session: Session, sizes: tuple[int, ...]) -> None:
    """One work of each size, in items, on the same recipe under other names."""
    recipe = next(iter(fixed_recipes(session.store.file.parents).values()))
    for number, size in enumerate(sizes):
        session.propose(Candidate(number=number, genome=None, recipe=recipe, origin="baseline", name=str(number)))
        assigned = session.assign(number, Draw(pool="search", places={"task": tuple(range(size))}), "baseline")
        session.submit(assigned, recipe)


def test_of_works_that_wait_the_longest_begins_first(tmp_path: Path) -> None:
    slots = Slots(1)
    session = session_of(tmp_path / "RUN", slots, ahead=True)
    hand_out(session, (5, 10, 30, 20))
    assert slots.begun == [0], "who comes first begins, nobody knows what follows"
    assert session.in_flight == 4
    assert session.room > 100
    session.settle()
    assert slots.begun == [0, 2, 3, 1]
    assert not session.in_flight


def test_what_waits_here_counts_beside_what_waits_for_workers(tmp_path: Path) -> None:
    slots = Slots(1)
    session = session_of(tmp_path / "RUN", slots, ahead=True)
    hand_out(session, (5, 10, 30, 20))
    slots.news.append(Workers(at=2e9, ready=1, starting=0, busy=1, queued=2, held=1.0, used=1.0))
    session.collect()
    assert [event.queued for event in session.store.events() if event.kind == "workers"] == [2 + 3]


def test_without_a_generation_nothing_waits(tmp_path: Path) -> None:
    session = session_of(tmp_path / "RUN", Slots(2), ahead=False)
    hand_out(session, (5, 5))
    assert session.room == 0


def test_who_has_more_in_hand_than_workers_has_no_room(tmp_path: Path) -> None:
    """As a resumed search has that was cut when there were more of them."""
    slots = Slots(2)
    session = session_of(tmp_path / "RUN", slots, ahead=False)
    hand_out(session, (5, 5, 5, 5, 5))
    assert session.in_flight == 5
    assert session.room == 0


def test_a_stop_does_not_wait_for_works_that_nobody_does(tmp_path: Path) -> None:
    """Where the cluster is lost they may never come back; what workers said before the stop does not count."""
    slots = Slots(2)
    session = session_of(tmp_path / "RUN", slots, ahead=True)
    hand_out(session, (5, 10))
    nobody = Workers(at=0.0, ready=0, starting=2, busy=0, queued=2, held=0.0, used=0.0)
    slots.is_away = True

    def say(workers: Workers) -> None:
        slots.news = [workers]
        session.collect()

    say(nobody)
    session.stop()
    session.check_interrupted()
    say(nobody.model_copy(update={"busy": 1, "ready": 1}))
    session.check_interrupted()
    say(nobody)
    with pytest.raises(Interrupted):
        session.check_interrupted()
    assert [work.work for work in session.state.open_works()] == [0, 1]


def test_what_waits_is_not_begun_once_the_user_wants_to_stop(tmp_path: Path) -> None:
    slots = Slots(2)
    session = session_of(tmp_path / "RUN", slots, ahead=True)
    hand_out(session, (5, 10, 30, 20))
    session.stop()
    with pytest.raises(Interrupted):
        session.settle()
    assert slots.begun == [0, 1]
    assert [work.work for work in session.state.open_works()] == [2, 3], "they are done on resuming"
