"""Budgets in time, with one worker and with many, on a clock that is turned by hand."""

import time
from pathlib import Path

import pytest
from timed import ends, extended, opened, run, searched

from evomerge.events import Extended, Opened
from evomerge.results import Results
from evomerge.spec import Budget
from evomerge.store import RunStore


@pytest.mark.parametrize("mode", ["generation", "steady"])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("workers", [1, 3, 4])
def test_seconds_are_kept_and_used(workers: int, ahead: bool, mode: str, tmp_path: Path) -> None:
    """What begins takes 12 s at most where 10 are expected."""
    session, executor = opened(run(Budget(seconds=205.0), tmp_path / "RUN", mode=mode), workers, ahead=ahead)
    found = searched(session)
    assert max(ends(executor)) <= 205 + 2.5
    assert max(ends(executor)) > 205 - 2 * 12
    assert len(found.state.finished()) >= 0.6 * workers * 205 / 10
    assert found.is_confirmed


@pytest.mark.parametrize(("workers", "gpus", "each"), [(1, 0.0, 1.0), (4, 0.0, 1.0), (4, 1.0, 1.0), (4, 0.25, 0.25)])
def test_accelerator_hours_are_those_of_all_workers(workers: int, gpus: float, each: float, tmp_path: Path) -> None:
    """Whether they work or wait; half of an accelerator costs half."""
    hours = 400 / 3600
    session, executor = opened(run(Budget(accelerator_hours=hours), tmp_path / "RUN"), workers, ahead=True, gpus=gpus)
    searched(session)
    spent = max(ends(executor)) * workers * each
    assert 400 - 2 * 12 * workers * each < spent <= 400 + 2.5 * workers * each


def test_what_was_handed_out_and_does_not_fit_is_left_to_a_larger_budget(tmp_path: Path) -> None:
    """Candidates get slower half-way through a generation; what was not begun stays assigned."""
    store = run(Budget(seconds=150.0), tmp_path / "RUN")
    session, executor = opened(store, 2, ahead=True)
    take = executor.submit

    def slower(work: object) -> None:
        executor.each = 10.0 if executor.now < 1_000_100 else 40.0
        take(work)  # type: ignore[arg-type]

    executor.submit = slower  # type: ignore[method-assign,assignment]
    found = searched(session)
    left = [work.number for work in found.state.open_works()]
    assert left, "something was assigned and never begun"
    assert found.is_confirmed
    done = len(found.state.finished())
    store.close()
    store = RunStore(tmp_path / "RUN", write=True)
    session, executor = opened(store, 2, ahead=True)
    extended(session, Budget(evaluations=done + len(left) + 6))
    found = searched(session)
    assert not found.state.open_works()
    assert set(left) <= found.state.told_numbers
    assert len(found.state.finished()) == done + len(left) + 6


def test_sessions_add_up(tmp_path: Path) -> None:
    """What the first cost to its end, confirmation included, counts in the second."""
    store = run(Budget(accelerator_hours=600 / 3600, seconds=10_000.0), tmp_path / "RUN")
    session, _ = opened(store, 4, gpus=1.0)
    searched(session)
    spent = session.accelerator_hours()
    assert spent == pytest.approx(4 * session.seconds() / 3600)
    store.close()
    store = RunStore(tmp_path / "RUN", write=True)
    session, executor = opened(store, 1)
    assert session.accelerator_hours() == pytest.approx(spent, rel=1e-3)
    searched(session)
    assert not ends(executor), "there was nothing left"
    assert Results(store).state.accelerator_seconds() == pytest.approx(3600 * session.accelerator_hours(), rel=1e-3)


def test_with_nothing_known_there_is_one_for_each_worker(tmp_path: Path) -> None:
    session, executor = opened(run(Budget(seconds=1.0), tmp_path / "RUN"), 3)
    assert session.left() == 3
    searched(session)
    assert 0 < len(ends(executor)) <= 3


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_the_wall_clock_may_be_set(jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back or forward, again and again: neither this process nor the next one counts it."""
    at, folder = [1.8e9], tmp_path / "RUN"

    def wall() -> float:
        at[0] += jump
        return at[0]

    monkeypatch.setattr(time, "time", wall)
    session, executor = opened(run(Budget(seconds=205.0), folder), 1)
    searched(session)
    assert 205 - 2 * 12 < max(ends(executor)) <= 205 + 2.5
    spent = session.seconds()
    session.store.close()
    session, executor = opened(RunStore(folder, write=True), 1)
    assert session.seconds() == pytest.approx(spent)
    searched(session)
    assert not ends(executor), "there was nothing left"


def test_a_journal_that_has_only_the_wall_clock_is_counted_by_it(tmp_path: Path) -> None:
    """As those of old; a clock that was set back meanwhile takes nothing away."""
    store = run(Budget(seconds=205.0), tmp_path / "RUN")
    store.append(Opened(at=1000.0, budget=Budget(seconds=205.0), executor="inline", device="cpu"))
    for at in (1010.0, -6000.0, 1020.0, -6000.0):
        store.append(Extended(at=at, budget=Budget(seconds=205.0)))
    assert Results(store).state.seconds() == 20.0
    session, _ = opened(store, 1)
    assert session.seconds() == 20.0
    assert session.accelerator_hours() == pytest.approx(20 / 3600)
