"""Searches in which candidates share layers: the same with states kept and without, cut short and gone on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import journals
import pytest
from conftest import Typed, events, story

Cli = Callable[..., Typed]
Write = Callable[..., Path]
PATHS = {"space": "dataflow-small", "optimizer": {"kind": "nsga2", "population": 8}, "budget": {"evaluations": 30}}


@pytest.fixture
def searched(cli: Cli, run_file: Write, tmp_path: Path) -> dict[str, Path]:
    """A search over paths that keeps states, and one that keeps none."""
    runs = {}
    for name, reuse in (("kept", 0.25), ("none", 0)):
        path = run_file(f"{name}.yaml", **PATHS, executor={"kind": "inline", "reuse": reuse})
        found = cli("search", path, "--out", tmp_path / name)
        assert found.status == 0, found.err
        assert (" reused=0." in found.err) == (name == "kept")
        runs[name] = tmp_path / name
    return runs


def test_kept_states_change_nothing_but_what_is_run(searched: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    assert story(searched["kept"]) == story(searched["none"])
    marks = [(run / "responses/marks.f64").read_bytes() for run in searched.values()]
    assert marks[0] == marks[1]
    kept, none = (json.loads(cli("show", run, "--json").out)["layer_evaluations"] for run in searched.values())
    assert none["reused"] == 0
    assert kept["reused"] > 0.1 * none["run"]
    assert kept["run"] + kept["reused"] == none["run"]
    evaluated = [event for event in events(searched["kept"]) if event["kind"] == "evaluated"]
    assert sum(event.get("layer_evaluations", {}).get("reused", 0) for event in evaluated) == kept["reused"]
    lines = (searched["kept"] / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in (len(lines) // 3, len(lines) // 2):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(searched["kept"], run)
        journals.cut(run, cut)
        assert cli("resume", run).status == 0
        assert story(run) == story(searched["kept"])
