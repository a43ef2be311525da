"""What every executor keeps to: one suite, run on all of them."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from conftest import ROOT
from toys import FAILING, ITEMS, PARENTS, Toy, Toys, work
from unions import kinds_of

from evomerge.execute import Executor, InlineExecutor
from evomerge.spec import ExecutorSpec, RaySpec
from evomerge.trial import Draw, Evaluation

CASES = ["inline", "ray", "ray split"]
assert {case.split()[0] for case in CASES} == set(kinds_of(ExecutorSpec)), "an executor without a case"


@pytest.fixture(scope="module", params=CASES)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        yield InlineExecutor(Toy())
        return
    from evomerge.execute.ray import RayExecutor

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))  # Where workers find the toys.
        with closing(RayExecutor(RaySpec(workers=2), Toys(), PARENTS, lambda _: None)) as ray:
            ray.split = 2 if request.param == "ray split" else 1
            yield ray


def results(executor: Executor, count: int) -> dict[int, Evaluation]:
    found: dict[int, Evaluation] = {}
    while len(found) < count:
        for news in executor.wait(None):
            if isinstance(news, Evaluation):
                assert news.work not in found, "once"
                found[news.work] = news
    return found


def test_every_work_comes_back_once_with_its_marks(executor: Executor) -> None:
    for number in range(6):
        executor.submit(work(number))
    found = results(executor, 6)
    assert [found[number].outcome for number in range(6)] == [
        {"task": {"acc": tuple(float(number + place) for place in range(ITEMS))}} for number in range(6)
    ]
    assert all(each.worker for each in found.values())


def test_marks_are_in_the_order_of_the_draw(executor: Executor) -> None:
    places = (31, 2, 17, 5, 39, 0, 8, 11, 23, 4, 1, 29, 30, 3, 21, 9, 10, 6)
    executor.submit(work(7, Draw(pool="search", places={"task": places}, probabilities={"task": (0.5,) * len(places)})))
    assert results(executor, 1)[7].outcome == {"task": {"acc": tuple(7.0 + place for place in places)}}


def test_scores_come_where_they_are_asked_for_in_the_order_of_the_draw(executor: Executor) -> None:
    executor.submit(work(8).model_copy(update={"scored": True}))
    assert results(executor, 1)[8].scores == {"task": tuple((8.0, float(place)) for place in range(ITEMS))}
    executor.submit(work(9))
    assert results(executor, 1)[9].scores is None


def test_a_failed_candidate_is_a_result(executor: Executor) -> None:
    executor.submit(work(FAILING))
    outcome = results(executor, 1)[FAILING].outcome
    assert getattr(outcome, "reason", None) == "it is a toy"


def test_there_is_room_for_a_work_where_none_is_in_hand(executor: Executor) -> None:
    assert executor.free >= 1
    before = executor.free
    executor.submit(work(1))
    assert executor.free == before - 1
    results(executor, 1)
    assert executor.free >= 1


def test_nothing_is_waited_for_where_there_is_nothing(executor: Executor) -> None:
    assert not any(isinstance(news, Evaluation) for news in executor.wait(None))
