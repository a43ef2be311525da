"""Searches on Ray whose driver is killed, stopped, or not alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Typed, content, events
from processes import PATIENCE, driving, evaluated, surroundings, undisturbed, until, write_run


def test_killed_drivers_leave_nothing_behind_and_resume_the_same() -> None:
    """The script that anyone can run with more kills."""
    script = ROOT / "scripts/kill_test.py"
    arguments = [sys.executable, str(script), "--kills", "3", "--evaluations", "30", "--executor", "ray"]
    found = subprocess.run(arguments, capture_output=True, text=True, check=False, env=surroundings())
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_run_goes_on_in_one_process_and_on_workers_again(tmp_path: Path) -> None:
    run, spec = tmp_path / "RUN", write_run(tmp_path)
    for number, arguments in enumerate((("search", spec, run), ("resume", run, "inline"), ("resume", run, "ray"))):
        with driving(tmp_path, *arguments, seconds=0.1) as driver:
            if number < 2:
                at = evaluated(run) + 5
                until(lambda at=at: evaluated(run) > at, PATIENCE, lambda: driver.said)
                driver.kill()
            else:
                driver.ends(0, PATIENCE)
    assert content(run) == undisturbed(tmp_path)


@pytest.mark.parametrize("sent", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)])
def test_only_signals_stop_it(sent: tuple[signal.Signals, ...], tmp_path: Path, cli: Callable[..., Typed]) -> None:
    """No second driver does. SIGTERM even if a candidate takes for ever; Ctrl-C, which all get, when it is done."""
    run, options = tmp_path / "RUN", {"kind": "ray", "workers": 1}
    spec = write_run(tmp_path, executor=options, budget={"evaluations": 10_000})
    with driving(tmp_path, "search", spec, run, seconds=1.0, EVOMERGE_GRACE="4") as driver:
        until(lambda: evaluated(run) > 2, PATIENCE, lambda: driver.said)
        assert (second := cli("resume", run)).status == 2
        assert f"{run} is in use by another process" in second.err
        if len(sent) != 1 or sent == (signal.SIGTERM,):
            driver.meets("poison.hang")
            until((driver.troubles / "victim-poison.hang").exists, PATIENCE, lambda: driver.said)
        for number in sent:
            if number is signal.SIGINT:
                os.killpg(driver.process.pid, number)
            else:
                driver.process.send_signal(number)
            time.sleep(0.5)
        said = driver.ends(130, PATIENCE)
    assert f"stopped; go on with: evomerge resume {run}" in said
    assert "finalists" in said
    found = events(run)
    assert found[-1]["kind"] == "closed"
    assert found[-1]["state"] == "stopped"
    assert not [event for event in found if event["kind"] == "incident"], "workers do not hear Ctrl-C"
