"""Commands interrupted twice, or whose reader, terminal or streams are gone. `scripts/interrupt_test` does more."""

import io
import os
import signal
import subprocess
from pathlib import Path

import pytest
from interrupt_test import complaint, interrupted
from kill_test import command, write_run_file
from simulated import Plan, begin, go_on, make_world

from evomerge.fitness import EstimatorSpec
from evomerge.interruptible import Interruptible
from evomerge.session import Session
from evomerge.spec import Budget, CmaSpec
from evomerge.terminal.progress import Plain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals") / "RUN"
    worlds = {"task": make_world(28, 0, search=40)}
    plan = Plan(EstimatorSpec(items=8), Budget(evaluations=20), seed=1, optimizer=CmaSpec(population=8))
    go_on(worlds, begin(worlds, plan, folder))
    return folder


def test_two_ctrl_c_before_anything_is_loaded() -> None:
    status, said = interrupted(command("--help"), (0.0, 0.001), (signal.SIGINT, signal.SIGINT))
    assert (status, said) == (130, "evomerge: interrupted\n")


@pytest.mark.parametrize("worked", [0.4, 1.0])
def test_two_ctrl_c_while_all_is_being_loaded(worked: float, run: Path, tmp_path: Path) -> None:
    """There is a run to go on with, and one that has not begun."""
    sent = (signal.SIGINT, signal.SIGINT)
    status, said = interrupted(command("resume", run, "--budget", 40), (worked, 0.001), sent)
    assert complaint(run, status, said) is None, said
    path = write_run_file(tmp_path, "cma", 30, "inline")
    status, said = interrupted(command("search", path, "--out", tmp_path / "NEW"), (worked, 0.001), sent)
    assert complaint(tmp_path / "NEW", status, said) is None, said


STREAMS = {
    '"$@" | true': (0, 0),
    '"$@" >&-': (0, 0),
    '"$@" >&- 2>&- <&-': (0, 0),
    '"$@" >/dev/full': (1, 1),
    'PYTHONIOENCODING=ascii "$@"': (0, 0),
}
"""Shell lines, with the status that they end with, and how many lines they say on standard error."""


@pytest.mark.parametrize("line", STREAMS)
def test_a_reader_that_left_and_streams_that_are_closed(line: str) -> None:
    words = ["bash", "-c", f"set -o pipefail; {line}", "bash", *command("search", "--help")]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == STREAMS[line], done.stderr


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_search_goes_on_when_nobody_watches_any_more() -> None:
    """What it found in the end is another matter."""
    watched = Plain(file=Gone(), stderr=True)
    watched.print("progress")
    watched.print("more")
    with pytest.raises(BrokenPipeError):
        Plain(file=Gone()).print("results")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    worlds = {"task": make_world(28, 0, search=40)}
    plan = Plan(EstimatorSpec(items=8), Budget(evaluations=20), seed=1)
    return Session(begin(worlds, plan, tmp_path / "RUN"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_lets_candidates_finish_and_the_second_does_not(
    number: signal.Signals, session: Session
) -> None:
    with pytest.raises(KeyboardInterrupt), Interruptible(session):
        os.kill(os.getpid(), number)
        assert session.stopping
        os.kill(os.getpid(), number)


def test_what_a_process_ignores_it_goes_on_ignoring(session: Session) -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptible(session):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not session.stopping
    finally:
        signal.signal(signal.SIGHUP, before)
