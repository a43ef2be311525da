"""Runs that were stopped, killed, cut short or damaged, and go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import journals
import pytest
from conftest import ROOT, Typed, events, story
from processes import PATIENCE, driving, evaluated, until, write_run

from evomerge.assemble import Listener, resume, search
from evomerge.errors import Interrupted
from evomerge.optimize.cma import Cma
from evomerge.optimize.sobol import Sobol
from evomerge.spec import Budget, load_run
from evomerge.trial import Observation

Cli = Callable[..., Typed]
Write = Callable[..., Path]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "evomerge", *map(str, arguments)]


def wait_for(run: Path, lines: int) -> None:
    for _ in range(6000):
        if (run / "journal.jsonl").exists() and (run / "journal.jsonl").read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError("the search does not get on")


def test_ctrl_c_finishes_the_candidate_and_says_how_to_go_on(tmp_path: Path, cli: Cli) -> None:
    """As SIGTERM does, in `test_stages`, and SIGHUP, in `test_signals`."""
    run = tmp_path / "RUN"
    path = write_run(tmp_path, executor="inline", budget={"evaluations": 100_000})
    with driving(tmp_path, "search", path, run, seconds=1.0) as driver:
        until(lambda: evaluated(run) > 2, PATIENCE, lambda: driver.said)
        second = cli("resume", run)
        assert second.status == 2
        assert "in use by another process" in second.err
        assert json.loads(cli("show", run, "--json").out)["state"] == "running"
        at = evaluated(run)
        until(lambda: evaluated(run) > at, PATIENCE, lambda: driver.said)
        time.sleep(0.5)  # The next one has begun, and takes a second.
        driver.process.send_signal(signal.SIGINT)
        said = driver.ends(130, PATIENCE)
    assert f"evomerge resume {run}" in said
    assert "finalists" in said
    assert "stopped" in said
    found = events(run)
    assert found[-1]["kind"] == "closed"
    assert found[-1]["state"] == "stopped"
    works = {event["work"] for event in found if event["kind"] == "assigned"}
    assert works == {event["work"] for event in found if event["kind"] == "evaluated"}, (
        "the running candidate was finished"
    )
    assert json.loads(cli("show", run, "--json").out)["state"] == "stopped"


def test_killed_searches_resume_bit_for_bit() -> None:
    """The script that anyone can run with more kills."""
    script = ROOT / "scripts/kill_test.py"
    arguments = [sys.executable, str(script), "--kills", "3", "--evaluations", "30"]
    found = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_torn_last_line_is_dropped_and_mentioned(
    copy_of_run: Callable[[str], Path], cli: Cli, run_file: Write
) -> None:
    run = copy_of_run("one")
    whole = story(run)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if b'"kind":"evaluated"' in line and i > 60)
    journals.cut(run, cut, lines[cut][: len(lines[cut]) // 2])
    found = cli("resume", run)
    assert found.status == 0, found.err
    assert "cut short by a crash; it is dropped" in found.err
    assert story(run) == whole


def test_a_full_disk_stops_cleanly_and_resumes(run_file: Write, tmp_path: Path, cli: Cli) -> None:
    """On a real file system of 100 kB, made bigger afterwards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        path = run_file(space="per-layer", budget={"evaluations": 90})
        alone = tmp_path / "alone"
        assert cli("search", path, "--out", alone).status == 0
        run = disk / "RUN"
        found = cli("search", path, "--out", run)
        assert found.status == 1, found
        assert "No space left on device" in found.err
        assert f"evomerge resume {run}" in found.err
        assert "Traceback" not in found.err
        assert cli("show", run).status == 0
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert cli("resume", run).status == 0
        assert story(run) == story(alone)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_finished_run_takes_more_budget(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    assert cli("search", run_file(space="per-group", budget={"evaluations": 16}), "--out", run).status == 0
    before = story(run)
    assert cli("resume", run).status == 0
    assert story(run) == before, "nothing is left to do"
    assert cli("resume", run, "--budget", 30).status == 0
    after = story(run)
    assert after[: len(before)] == before
    found = json.loads(cli("show", run, "--json").out)
    assert found["evaluations"] == {"done": 30, "failed": 0, "budget": 30}
    assert found["state"] == "finished"


class Norms:
    """A cheap scorer that tells models apart: no forward passes, so that a run can be resumed often."""

    items: Mapping[str, Sequence[str]] = {"norms": [str(i) for i in range(24)]}

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        size = float(sum(p.float().square().sum() for name, p in model.named_parameters() if "mlp.up" in name)) ** 0.5
        return {"norms": {label: [(size * (i + int(k))) % 1 for k in items["norms"]] for i, label in enumerate("ab")}}


@pytest.mark.parametrize("optimizer", ["cma", "nsga2", "tpe", "random"])
def test_a_run_cut_at_any_line_goes_on_the_same(optimizer: str, run_file: Write, tmp_path: Path) -> None:
    """As kill -9 leaves it: between any two lines, with marks that no line refers to."""
    labels = "ab" if optimizer == "nsga2" else "a"
    fitness = {
        "objectives": {label: {"task": "norms", "metric": label} for label in labels},
        "items": {"search": 8, "confirm": 8},
    }
    spec = load_run(run_file(fitness=fitness, optimizer=optimizer, budget={"evaluations": 19}))
    search(spec, tmp_path / "whole", scorer=Norms())
    whole = story(tmp_path / "whole")
    for cut in journals.places(tmp_path / "whole", 11, optimizer):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        journals.cut(run, cut)
        assert resume(run, scorer=Norms()).to_json()["evaluations"]["budget"] == 19
        assert story(run) == whole, f"cut after {cut} lines"


def test_ctrl_c_while_the_optimiser_learns_costs_nothing(
    run_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitness = {"objectives": {"a": {"task": "norms", "metric": "a"}}, "items": {"search": 8, "confirm": 8}}
    spec = load_run(run_file(fitness=fitness, budget={"evaluations": 30}))
    search(spec, tmp_path / "whole", scorer=Norms())
    tell, calls = Cma.tell, []

    def interrupted(self: Cma, observations: Sequence[Observation]) -> None:
        tell(self, observations)
        calls.append(len(observations))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Cma, "tell", interrupted)
        with pytest.raises(Interrupted):
            search(spec, tmp_path / "RUN", scorer=Norms())
    assert resume(tmp_path / "RUN", scorer=Norms()).status == "finished"
    assert story(tmp_path / "RUN") == story(tmp_path / "whole")
    assert any(event.get("origin") == "recommended" for event in story(tmp_path / "RUN"))


def test_a_journal_that_the_optimiser_would_not_ask_again_is_gone_on_from(
    run_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a library was replaced by a version that draws other points."""
    fitness = {"objectives": {"a": {"task": "norms", "metric": "a"}}, "items": {"search": 8, "confirm": 8}}
    run = tmp_path / "RUN"
    search(load_run(run_file(fitness=fitness, optimizer="random")), run, scorer=Norms())
    before = story(run)
    ask = Sobol.ask
    with monkeypatch.context() as patch:
        patch.setattr(Sobol, "ask", lambda self, count: [tuple(1 - x for x in genome) for genome in ask(self, count)])
        notes: list[str] = []
        found = resume(run, budget=Budget(evaluations=20), scorer=Norms(), listener=Listener(say=notes.append))
    assert any("not what the optimiser asks now" in note and "recorded results" in note for note in notes)
    assert found.to_json()["evaluations"]["done"] == 20
    assert story(run)[: len(before)] == before


def test_a_second_ctrl_c_does_not_wait(run_file: Write, tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "RUN"
    process = subprocess.Popen(
        command("search", run_file(budget={"evaluations": 100_000}), "--out", run),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(run, 40)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"evomerge resume {run}" in err
    assert "Traceback" not in err
    assert json.loads(cli("show", run, "--json").out)["state"] == "stopped"


def test_less_budget_than_is_spent_is_refused(copy_of_run: Callable[[str], Path], cli: Cli) -> None:
    run = copy_of_run("one")
    before = (run / "journal.jsonl").read_bytes()
    found = cli("resume", run, "--budget", 10)
    assert found.status == 2
    assert "40 evaluations are done, 10 would be fewer" in found.err
    found = cli("resume", run)
    assert found.status == 0
    assert "is finished; a larger budget extends it" in found.err
    assert (run / "journal.jsonl").read_bytes() == before


def test_missing_marks_and_items_are_named(copy_of_run: Callable[[str], Path], cli: Cli) -> None:
    run = copy_of_run("one")
    (run / "responses/marks.f64").unlink()
    found = cli("show", run)
    assert found.status == 2
    assert "marks.f64 is missing" in found.err
    (run / "responses/items.json").write_text("{")
    found = cli("show", run)
    assert found.status == 2
    assert "items.json was changed" in found.err
