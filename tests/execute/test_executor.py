"""What the driver makes of workers that are gone, late, quick or slow: real Ray, cheap works."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from processes import PATIENCE
from toys import BREAKING, DEADLY, FAILING, PARENTS, SLOW, Moodies, Strangers, work

from evomerge.errors import DeviceError
from evomerge.events import Incident, Workers
from evomerge.execute import News
from evomerge.execute.ray import RayExecutor, pace, pool, verdicts
from evomerge.execute.ray.member import Member
from evomerge.spec import RaySpec
from evomerge.trial import Evaluation, Failure

Start = Callable[..., RayExecutor]


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One for all tests here; executors use what there is."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))  # Where workers find the toys.
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
        yield
        ray.shutdown()


@pytest.fixture
def start(ray: None) -> Iterator[Start]:
    """Starts an executor, by default with all its workers there."""
    started: list[Any] = []

    def begin(workers: int, toys: Moodies | Strangers | None = None, *, whole: bool = True, **more: Any) -> RayExecutor:
        made = RayExecutor(RaySpec(workers=workers, **more), toys or Moodies(), PARENTS, lambda _: None)
        started.append(made)
        while whole and len(made.pool.ready) < workers:
            made._turn(0.1)
        return made

    yield begin
    for each in started:
        with closing(each):
            pass


def results(made: RayExecutor, *numbers: int) -> list[News]:
    """Have works done, and everything that is said meanwhile."""
    for number in numbers:
        made.submit(work(number))
    found: list[News] = []
    ends = time.monotonic() + PATIENCE
    while sum(isinstance(news, Evaluation) for news in found) < len(numbers):
        assert time.monotonic() < ends, found
        found += made.wait(1.0)
    return found


def incidents(found: list[News]) -> list[Incident]:
    return [news for news in found if isinstance(news, Incident)]


def failures(found: list[News]) -> list[Failure]:
    return [n.outcome for n in found if isinstance(n, Evaluation) and isinstance(n.outcome, Failure)]


def kill_idle(made: RayExecutor, count: int) -> None:
    for member in made.pool.idle[:count]:
        os.kill(int(member.name.split(":")[1]), signal.SIGKILL)


def test_a_work_handed_to_workers_that_are_gone_is_not_blamed(start: Start) -> None:
    """They were killed while there was nothing to do, and nobody listened."""
    made = start(3, deaths=1)
    kill_idle(made, 3)
    time.sleep(1)
    found = results(made, 1)
    assert not failures(found)
    assert {incident.what for incident in incidents(found)} == {"it was killed, or crashed, before it had begun"}


def test_a_worker_that_dies_with_nothing_to_do_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PULSE", 0.5)
    made = start(2)
    made.submit(work(SLOW + 6))
    kill_idle(made, 1)
    found: list[News] = []
    until = time.monotonic() + 5
    while time.monotonic() < until and not any(isinstance(n, Workers) and n.ready == 1 for n in found):
        found += made.wait(1.0)
    (incident,) = incidents(found)
    assert (incident.stage, incident.work, incident.what) == ("idle", None, "it was killed, or crashed")
    assert incident.worker.startswith("moody:")
    while not any(isinstance(news, Evaluation) for news in found):
        found += made.wait(1.0)
    assert [news.ready for news in found if isinstance(news, Workers)][-1] == 2
    assert not failures(found)


def test_a_candidate_that_breaks_devices_is_given_up_and_the_search_goes_on(start: Start) -> None:
    made = start(2, deaths=2)
    found = results(made, 1, BREAKING, 2, 3, SLOW + 1, 4)
    (failure,) = failures(found)
    assert failure.stage == "worker"
    assert failure.reason.startswith("2 tries came to nothing, the last: the device has stopped working")
    assert len(incidents(found)) == 2
    assert not failures(results(made, 5, 6))


def test_one_bad_device_is_no_proof_against_a_candidate(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put to another one, too, before it is given up, however long that takes."""
    made = start(2, deaths=2)
    made.submit(work(SLOW + 8))
    (busy,) = (member.name for member in made.pool.members if member.task is not None)
    monkeypatch.setattr(Member, "place", property(lambda member: "good" if member.name == busy else "bad"))
    found = results(made, BREAKING)
    while not failures(found):
        found += made.wait(1.0)
    *before, last = incidents(found)
    assert len(before) >= 2
    assert busy not in {incident.worker for incident in before}
    assert last.worker == busy


def test_a_work_given_up_leaves_room_while_others_are_at_its_pieces(start: Start) -> None:
    made = start(2, deaths=1)
    made.split = 2
    found = results(made, DEADLY)
    assert len(failures(found)) == 1
    assert any(member.task is not None for member in made.pool.members)
    assert made.free == 1
    assert not failures(results(made, 1))


def test_devices_that_break_whatever_they_do_end_the_run_once_all_is_told(start: Start) -> None:
    made = start(2, deaths=9)
    for number in range(4):
        made.submit(work(BREAKING + number))
    found: list[News] = []
    with pytest.raises(DeviceError, match="has stopped working"):
        while True:
            found += made.wait(1.0)
    assert len(incidents(found)) == verdicts.ALL_ALIKE + 2


def test_what_fails_at_once_hurries_nobody(start: Start) -> None:
    """Nor do quick works before there are some; then whoever takes ten times as long has hung."""
    made = start(2, deadline=1.0, deaths=1)
    found = results(made, FAILING, SLOW + 2)
    assert not incidents(found)
    assert [failure.reason for failure in failures(found)] == ["it is a toy"]
    assert not incidents(results(made, *range(8)))
    found = results(made, SLOW + 60)
    (failure,) = failures(found)
    assert failure.reason.startswith("it hung: no answer after")


def test_whoever_joins_is_heard_of_at_once(start: Start, tmp_path: Path) -> None:
    made = start(2, Moodies(seconds=2.0, order=str(tmp_path)), whole=False)
    made.submit(work(SLOW + 20))
    found: list[News] = []
    begun = time.monotonic()
    while not any(isinstance(news, Workers) and news.ready == 2 for news in found):
        found += made.wait(None)
    assert time.monotonic() - begun < 18
    assert not any(isinstance(news, Evaluation) for news in found)
    assert made.free == 1


def test_a_worker_that_hangs_while_it_is_set_up_is_replaced(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "UNKNOWN", 4.0)
    made = start(2, Moodies(seconds=1e6, order=str(tmp_path)), whole=False, deadline=1.0)
    found: list[News] = []
    while len(made.pool.ready) < 2:
        found += results(made, 1)
    (incident,) = incidents(found)
    assert incident.stage == "start"
    assert "it hung: not set up after" in incident.what


def test_a_worker_that_cannot_be_set_up_ends_nothing_while_others_try(start: Start, tmp_path: Path) -> None:
    made = start(2, Moodies(seconds=8.0, order=str(tmp_path), broken=True), whole=False)
    (incident,) = incidents(results(made, 1))
    assert incident.what == "a worker could not be set up: the device computes no finite numbers"


def test_a_worker_whose_tasks_ask_otherwise_is_not_taken(start: Start, tmp_path: Path) -> None:
    made = start(2, Strangers(str(tmp_path)), whole=False)
    found = results(made, 1)
    while not incidents(found):
        found += results(made, 2)
    what = incidents(found)[0].what
    assert "task 'task' has other prompts, options, targets or settings for 40 of 40 items (search item" in what
    assert "than for the first worker" in what


def test_a_driver_that_did_not_listen_blames_nobody(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there by then counts; what is not gets the time that nobody listened on top."""
    made = start(2, deadline=1.0, deaths=1)
    results(made, *range(8))
    made.submit(work(20))
    made.submit(work(SLOW + 6))
    time.sleep(5.5)
    found: list[News] = []
    while sum(isinstance(news, Evaluation) for news in found) < 2:
        found += made.wait(1.0)
    assert not incidents(found)
