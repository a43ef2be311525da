"""What is said while a search runs: fields in a log, words at a terminal, and what befalls workers in both."""

import io
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from simulated import Plan, begin, make_world, simulator, study
from timed import EIGHT_ITEMS, Timed

from evomerge.confirm import confirm
from evomerge.events import Incident, Opened
from evomerge.results import FINALISTS, Results
from evomerge.session import Session
from evomerge.spec import Budget, Nsga2Spec
from evomerge.terminal import Ticker
from evomerge.terminal import progress as progress_module

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def told(folder: Path, budget: Budget, console: Console) -> Results:
    """What a search by four workers says, with one that is killed on the way."""
    worlds = {f"task {i}": make_world(28, i, search=40) for i in range(2)}
    plan = Plan(estimator=EIGHT_ITEMS, budget=budget, seed=1, optimizer=Nsga2Spec(population=8))
    store = begin(worlds, plan, folder)
    executor = Timed(simulator(worlds, store), 4)
    executor.news = [Incident(at=executor.now, what="it was killed, or crashed", work=3, worker="there:7")]
    ticker = Ticker(console)
    session = Session(store, executor, ticker.watch, clock=executor.clock)
    session.record(Opened(at=executor.now, budget=budget, executor="ray", device="cpu"))
    study(session).run()
    confirm(session, FINALISTS)
    ticker.close()
    return Results(store)


@pytest.mark.parametrize("budget", [Budget(evaluations=40), Budget(seconds=100.0)])
def test_a_log_has_a_line_of_fields(budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "QUIET_EVERY", 0.0)
    log = _log()
    found = told(tmp_path / "RUN", budget, log)
    lines = log.file.getvalue().splitlines()
    assert all(STAMP.match(line) for line in lines)
    assert any(line.endswith("there:7: it was killed, or crashed; see evomerge show") for line in lines)
    rows = [shlex.split(line.partition(" search: ")[2]) for line in lines if " search: " in line]
    fields = [dict(part.split("=", 1) for part in row) for row in rows]
    last = fields[-1]
    assert int(last["done"]) == len(found.state.finished())
    assert last.get("of") == ("40" if budget.evaluations else None)
    assert re.fullmatch(r"task 0 0\.\d{3}, task 1 0\.\d{3}", last["best"])
    assert int(last["front"]) >= 1
    assert float(last["hypervolume"]) >= 0
    assert last["workers"] == "4"
    assert 0.5 < float(last["used"]) <= 1
    assert all(0 <= float(row["left"]) < 1e6 for row in fields[3:-1]), "a budget in time says it as well"
    assert any(" confirm: done=" in line for line in lines)


def test_a_terminal_has_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "OFTEN", 0.0)
    screen = Console(file=io.StringIO(), width=200, force_terminal=True, legacy_windows=False)
    told(tmp_path / "RUN", Budget(evaluations=40), screen)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())
    assert re.search(r"search ━+ +40/40 best task 0 0\.\d{3}, task 1 0\.\d{3}  front \d+  hypervolume 0\.\d{3}", text)
    assert re.search(r"workers 4 \d+% used", text)
    assert "there:7: it was killed, or crashed; see evomerge show" in text
    assert not STAMP.search(text)


def test_a_log_is_quiet(tmp_path: Path) -> None:
    """Forty candidates in less than ten seconds: a line when the search is done, and one when the confirmation is."""
    log = _log()
    told(tmp_path / "RUN", Budget(evaluations=40), log)
    assert 3 <= len(log.file.getvalue().splitlines()) <= 6


def _log() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True, highlight=False, markup=False)
