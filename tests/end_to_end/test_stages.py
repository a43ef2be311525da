"""Runs in stages: searches one after another, each over what the one before it found."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Typed, refused, small_fitness, story
from journals import cut as cut_journal

import evomerge
from evomerge.assemble import Listener, load, resume, search
from evomerge.assemble.stages import kept
from evomerge.errors import RunError
from evomerge.recipe import Recipe
from evomerge.spec import StagedSpec, load_spec

Cli = Callable[..., Typed]
Write = Callable[..., Path]
TWO = [
    {"name": "whole", "space": "model-wide", "optimizer": "cma", "share": 0.5, "keep": 2},
    {"name": "halves", "space": {"groups": 2}, "share": 0.5},
]


@pytest.fixture
def staged_file(run_file: Write) -> Write:
    """Writes a run file of two short stages."""

    def write(**changes: object) -> Path:
        path = run_file(**{"stages": TWO, "budget": {"evaluations": 24}, **changes})
        path.write_text(path.read_text().replace("space: model-wide\nfitness", "fitness"))
        return path

    return write


class Norms:
    """A cheap scorer that tells models apart: no forward passes, so that a run can be resumed often."""

    items: Mapping[str, Sequence[str]] = {"norms": [str(i) for i in range(24)]}

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        size = float(sum(p.float().square().sum() for name, p in model.named_parameters() if "mlp.up" in name)) ** 0.5
        return {"norms": {"a": [(size * int(k)) % 1 for k in items["norms"]]}}


NORMS = {"objectives": {"a": {"task": "norms", "metric": "a"}}, "items": {"search": 8, "confirm": 8}}


def stories(run: Path) -> list[Any]:
    return [story(run / "1-whole"), story(run / "2-halves")]


def test_each_stage_merges_what_the_one_before_it_confirmed(staged_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    found = cli("search", staged_file(), "--out", run)
    assert found.status == 0, found.err
    assert "stage 1 of 2, whole" in found.err
    assert "search: stage=whole done=12 of=12" in found.err
    assert "search: stage=halves done=12 of=12" in found.err
    assert f"{run}: stage 2 of 2, halves" in found.out
    assert f"next: evomerge report {run}" in found.out
    assert {path.name for path in run.iterdir()} == {"stages.yaml", "lock", "1-whole", "2-halves"}
    first, second = load(run / "1-whole"), load(run)
    assert second.store.folder == run / "2-halves"
    assert second.file.parents.experts == ("maths", "japanese", "whole 1", "whole 2")
    assert first.best is not None
    assert second.file.parents.models["whole 1"].content() == first.best.recipe
    assert second.file.parents.models["whole 2"].content() == first.front[1].recipe
    assert second.state.budget.evaluations == first.state.budget.evaluations == 12
    same = {row.name: row.confirmed for row in second.baselines}
    assert same["whole 1"] == first.best.confirmed, "the same model on the same items"


def test_every_command_works_on_the_whole_and_on_a_stage(staged_file: Write, cli: Cli, tmp_path: Path) -> None:
    run, path = tmp_path / "RUN", staged_file()
    planned = cli("plan", path)
    assert planned.status == 0, planned.err
    assert "stage 2 of 2, halves (evaluations 12) is not measured" in planned.out
    assert cli("search", path, "--out", run, "--budget", 20).status == 0
    shown = json.loads(cli("show", run, "--json").out)
    assert shown["stage"] == {"name": "halves", "number": 2, "of": 2}
    assert shown["state"] == "finished"
    assert shown["evaluations"] == {"done": 10, "failed": 0, "budget": 10}
    alone = json.loads(cli("show", run / "1-whole", "--json").out)
    assert "stage" not in alone
    assert cli("confirm", run, "--top", 3).status == 0
    for folder in (run, run / "1-whole"):
        assert cli("report", folder).status == 0
        assert (folder / "report.html").is_file()
        assert cli("export", folder, "--out", tmp_path / f"M-{folder.name}").status == 0
    for again in ((run,), (run, "--out", tmp_path / "other")):
        assert cli("search", path, "--out", again[0]).status == 2
    before = stories(run)
    assert cli("resume", run).status == 0
    assert stories(run) == before, "nothing is left to do"
    assert cli("resume", run, "--budget", 14).status == 0
    after = stories(run)
    assert after[0] == before[0]
    assert json.loads(cli("show", run, "--json").out)["evaluations"]["done"] == 14


def cut_anywhere(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """Copies of a staged run as kill -9 leaves it: before its first stage, within each, between two."""
    stages = ["1-whole", "2-halves"]
    for place, stage in enumerate(stages):
        lines = (whole / stage / "journal.jsonl").read_bytes().splitlines(keepends=True)
        for cut in (None, 1, *range(5 + 17 * place, len(lines) - 1, 41), len(lines) - 1):
            run = tmp_path / f"cut-{place}-{cut}"
            shutil.copytree(whole, run)
            for later in stages[place + 1 :]:
                shutil.rmtree(run / later)
            if cut is None:
                shutil.rmtree(run / stage)
            else:
                cut_journal(run / stage, cut)
            yield run


def test_a_run_cut_anywhere_goes_on_the_same(staged_file: Write, tmp_path: Path) -> None:
    spec = load_spec(staged_file(fitness=NORMS))
    whole = tmp_path / "whole"
    search(spec, whole, scorer=Norms())
    first = (whole / "1-whole/journal.jsonl").read_bytes()
    count = 0
    for run in cut_anywhere(whole, tmp_path):
        touched = (run / "2-halves").exists()
        assert resume(run, scorer=Norms()).status == "finished"
        assert stories(run) == stories(whole), run.name
        assert not touched or (run / "1-whole/journal.jsonl").read_bytes() == first, "a finished stage is not touched"
        count += 1
    assert count > 10


def test_ctrl_c_and_a_kill_say_how_to_go_on_with_the_whole(staged_file: Write, cli: Cli, tmp_path: Path) -> None:
    run, alone = tmp_path / "RUN", tmp_path / "alone"
    path = staged_file(budget={"evaluations": 70})
    assert cli("search", path, "--out", alone).status == 0
    kills = [("1-whole", signal.SIGINT), ("1-whole", signal.SIGKILL), ("2-halves", signal.SIGTERM)]
    command = ["search", str(path), "--out", str(run)]
    for stage, number in kills:
        process = subprocess.Popen(
            [sys.executable, "-m", "evomerge", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        before = size(run / stage)
        while size(run / stage) < before + 20 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # Else it may be done before the other one has seen that it is there.
        other = cli("resume", run)
        assert other.status == 2
        assert f"{run} is in use by another process" in other.err
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        command = ["resume", str(run)]
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert err.rstrip().endswith(f"evomerge resume {run}")
        assert json.loads(cli("show", run, "--json").out)["state"] == "stopped"
    assert cli("resume", run).status == 0
    assert stories(run) == stories(alone)


def size(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_a_run_between_two_stages_is_stopped(staged_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    search(load_spec(staged_file()), run)
    shutil.rmtree(run / "2-halves")
    assert json.loads(cli("show", run, "--json").out)["state"] == "stopped"
    assert f"{run}: stage 1 of 2, whole; go on with: evomerge resume {run}" in cli("show", run).out
    assert cli("resume", run, "--budget", 9).status == 0
    assert json.loads(cli("show", run, "--json").out)["evaluations"]["budget"] == 9, "it is the last stage's"
    assert load(run / "1-whole").state.budget.evaluations == 12
    (run / "stages.yaml").write_text((run / "stages.yaml").read_text() + "# mine\n")
    for command in ("show", "resume", "confirm", "report"):
        refused(cli(command, run), "stages.yaml was changed", "restore it")
    shutil.rmtree(run / "1-whole")
    shutil.rmtree(run / "2-halves")
    found = cli("show", run)
    assert found.status == 2
    assert f"none of its stages has begun; go on with: evomerge resume {run}" in found.err


def test_stages_have_settings_of_their_own(staged_file: Write, tmp_path: Path) -> None:
    fitness = small_fitness("lists")
    stages = [{**TWO[0], "keep": 1}, {**TWO[1], "seed": 11, "fitness": fitness, "parents": "kept"}]
    spec = load_spec(staged_file(stages=stages))
    results = search(spec, tmp_path / "RUN")
    assert results.objectives == ["lists"]
    assert results.file.spec.seed == 11
    assert results.file.parents.names == ("base", "whole 1")
    assert load(tmp_path / "RUN/1-whole").objectives == ["math_ja"]


def test_stages_may_stand_in_a_file_that_space_names(run_file: Write, tmp_path: Path) -> None:
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/own.yaml").write_text("groups: 2\n")
    (tmp_path / "spaces/mine.yaml").write_text(
        "stages: [{space: own.yaml, share: 0.25}, {space: slerp, share: 0.75}]\n"
    )
    by_space = load_spec(run_file(space="spaces/mine.yaml"))
    assert isinstance(by_space, StagedSpec)
    assert by_space.names == ("1", "2")
    assert [by_space.budget_of(place).evaluations for place in (0, 1)] == [4, 10]
    path = run_file(stages="spaces/mine.yaml")
    path.write_text(path.read_text().replace("space: model-wide\nfitness", "fitness"))
    assert load_spec(path) == by_space
    for preset in ("two-stage", "learned-path"):
        assert isinstance(load_spec(run_file(space=preset)), StagedSpec)


def test_the_preset_searches_coefficients_then_a_path(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    found = cli("search", run_file(space="two-stage", budget={"evaluations": 24}), "--out", run)
    assert found.status == 0, found.err
    results = load(run)
    assert results.file.spec.space.kind == "path"
    recipes = [results.recipe(number) for number in results.rows]
    assert len({len(recipe.layers) for recipe in recipes}) > 2, "paths of several lengths were tried"


def test_of_a_front_the_best_and_the_balanced_are_kept_first(finished: dict[str, Path]) -> None:
    results = load(finished["two"])
    assert results.best is not None
    names = [f"s {number}" for number in range(1, 60)]
    found = kept(results, names)
    assert len(found) == len(results.front), "all there are, each once"
    wanted = dict.fromkeys([results.best.recipe, *(results.pick(what).recipe for what in ("knee", "math_ja", "lists"))])
    assert [recipe.digest() for recipe in found.values()][: len(wanted)] == list(wanted)
    assert list(kept(results, names[:1])) == ["s 1"]


def test_from_python(staged_file: Write, tmp_path: Path) -> None:
    spec = load_spec(staged_file(fitness=NORMS))
    said: list[str] = []
    results = evomerge.search(spec, tmp_path / "RUN", scorer=Norms())
    assert results.status == "finished"
    assert isinstance(results.recipe(results.best.number).parents["whole 1"], Recipe)
    assert evomerge.load(tmp_path / "RUN").best == results.best
    assert evomerge.resume(tmp_path / "RUN", budget=16, scorer=Norms()).state.budget.evaluations == 16
    search(spec, tmp_path / "heard", scorer=Norms(), listener=Listener(enter=said.append))
    assert said == ["whole", "halves"]


def test_a_stage_of_nothing_but_failures_ends_the_run(staged_file: Write, tmp_path: Path) -> None:
    class Broken(Norms):
        def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
            raise ValueError("no")

    run = tmp_path / "RUN"
    with pytest.raises(RunError) as raised:
        search(load_spec(staged_file(fitness=NORMS)), run, scorer=Broken())
    assert str(run) in str(raised.value)
