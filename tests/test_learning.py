"""Learned coefficients, from the run file to the model: what a user relies on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Typed, events, refused
from toys import work

from evomerge.assemble import plan
from evomerge.assemble.means import QUIET
from evomerge.assemble.run import prepare
from evomerge.execute.ray.messages import packed, unpacked
from evomerge.recipe import Coefficients
from evomerge.report.curves import with_curves
from evomerge.report.figures import front
from evomerge.results import Results
from evomerge.results.between import between
from evomerge.results.curves import curves
from evomerge.space import BlendSpec
from evomerge.spec import GradientSpec, load_run
from evomerge.trial import Evaluation, Learnt, Work

Cli = Callable[..., Typed]
Write = Callable[..., Path]


def fitness(*tasks: str) -> dict[str, object]:
    return {
        "include": [str(ROOT / "fitness/demo")],
        "objectives": {task: {"task": task, "metric": "acc"} for task in tasks or ("math_ja",)},
        "items": {"search": 48, "confirm": 24, "group": "group"},
    }


def learning(write: Write, **changes: object) -> Path:
    plain: dict[str, object] = {
        "space": {"groups": "model", "grain": "tensor"},
        "fitness": fitness(),
        "optimizer": "gradient",
        "budget": {"item_evaluations": 1500},
    }
    return write(**(plain | changes))


@pytest.mark.parametrize("grain", [None, "tensor", "column", "row"])
def test_a_search_learns_coefficients_of_every_grain(
    grain: str | None, run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "RUN"
    space = {"groups": "layer"} | ({"grain": grain} if grain else {})
    optimizer = {"kind": "gradient", "rate": 0.02 if grain in ("column", "row") else 0.05}
    path = learning(run_file, space=space, optimizer=optimizer)
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    looks = [event for event in events(run) if event["kind"] == "learned"]
    assert looks[-1]["step"] == looks[-1]["course"]["steps"]
    losses = [look["losses"]["math_ja"] for look in looks]
    assert min(losses) < 0.95 * losses[0], "nothing was learned"
    assert looks[-1]["items"] <= 1500
    results = Results.load(run)
    learned = [n for n, asked in results.state.candidates.items() if asked.tradeoff is not None]
    assert len(learned) == 1
    assert results.rows[learned[0]].confirmed is not None
    shown = json.loads(cli("show", run, "--json").out)
    assert shown["item_evaluations"] <= 1500
    if grain == "column":  # Of all grains the one whose side files are largest.
        taken = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
        assert taken / 1.5 < plan(path).run_bytes < taken * 2  # A state that was kept in between may be there or not.
    out = tmp_path / "OUT"
    done = cli("export", run, "--pick", f"number:{learned[0]}", "--out", out, "--format", "model", "--format", "recipe")
    assert done.status == 0, done.err
    assert "were learned from" in (out / "README.md").read_text()
    recipe = results.recipe(learned[0])
    assert (recipe.arrays is not None) == (grain in ("column", "row"))
    if recipe.arrays is not None:
        assert (
            Coefficients.of_bytes((out / "coefficients.safetensors").read_bytes(), "it").digest()
            == recipe.arrays.digest
        )


def by_genes(write: Write, units: int = 1200, **space: object) -> Path:
    """A search over few enough numbers for slopes of every item's own."""
    fewer = {"groups": "layer"} | space
    return learning(write, space=fewer, optimizer={"kind": "gradient", "held": 12}, budget={"item_evaluations": units})


@pytest.mark.parametrize("operator", ["task_arithmetic", "slerp"])
def test_few_genes_are_learned_by_the_slopes_of_every_item(
    operator: str, run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    path = by_genes(run_file, operator=operator)
    planned = cli("plan", path)
    assert planned.status == 0, planned.err
    assert "by Gauss-Newton" in planned.out
    run = tmp_path / "RUN"
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    looks = [event for event in events(run) if event["kind"] == "learned"]
    assert looks[0]["course"]["price"] == (3 if operator == "slerp" else 4)
    losses = [look["losses"]["math_ja"] for look in looks]
    assert min(losses) < 0.98 * losses[0], "nothing was learned"
    assert looks[-1]["step"] == looks[-1]["course"]["steps"]
    assert json.loads(cli("show", run, "--json").out)["item_evaluations"] <= 1200
    results = Results.load(run)
    (learned,) = (n for n, asked in results.state.candidates.items() if asked.tradeoff is not None)
    assert results.rows[learned].confirmed is not None
    recipe = results.recipe(learned)
    assert recipe.arrays is None
    assert recipe.tensors, "genes are weights of tensors in the recipe"


def test_a_slerp_has_one_number_a_tensor_however_fine_the_grain(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    space = {"operator": "slerp", "groups": "layer", "grain": "column"}
    found = cli("search", learning(run_file, space=space, budget={"item_evaluations": 1000}), "--out", run)
    assert found.status == 0, found.err
    looks = [event for event in events(run) if event["kind"] == "learned"]
    assert looks[-1]["step"] == looks[-1]["course"]["steps"] > 0
    (learned,) = (asked for asked in Results.load(run).state.candidates.values() if asked.tradeoff is not None)
    assert learned.recipe is not None


@pytest.mark.parametrize("grain", ["tensor", "genes"])
def test_killed_learning_resumes_bit_for_bit(grain: str) -> None:
    """The script that anyone can run with more kills, and other grains."""
    kills = ["--grain", grain, "--kills", "3"]
    arguments = [sys.executable, str(ROOT / "scripts/kill_test.py"), "--optimizer", "gradient", *kills]
    found = subprocess.run(
        [*arguments, "--evaluations", "50"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def test_lessons_and_what_they_gave_go_from_process_to_process_bit_for_bit() -> None:
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        "b": np.full((2, 1), -0.0, dtype=np.float32),
    }
    given = work(0).model_copy(update={"coefficients": Coefficients("column", arrays)})
    there = unpacked(Work, packed(given))
    assert there.coefficients is not None
    assert there.coefficients.content == Coefficients("column", arrays).content
    taught = Evaluation(work=0, number=0, outcome={}, learnt=Learnt({"task": (0.1, 1 / 3)}, arrays))
    back = unpacked(Evaluation, packed(taught)).learnt
    assert back is not None
    assert back.losses == {"task": (0.1, 1 / 3)}
    assert all(back.slopes[name].tobytes() == array.tobytes() for name, array in arrays.items())
    scores = {"task": ((-0.1, -1 / 3), (-2.0,))}
    taught = Evaluation(work=0, number=0, outcome={}, learnt=Learnt({}, {}, scores, {"task": arrays["a.weight"]}))
    back = unpacked(Evaluation, packed(taught)).learnt
    assert back is not None
    assert back.scores == scores
    assert back.jacobians["task"].tobytes() == arrays["a.weight"].tobytes()


@pytest.mark.parametrize("grain", [None, "column"])
def test_two_workers_learn_what_one_process_does(grain: str | None, run_file: Write, cli: Cli, tmp_path: Path) -> None:
    space = {"groups": "layer", "grain": "column"}
    few, fine = by_genes(run_file), {"space": space, "budget": {"item_evaluations": 1000}}
    path = learning(run_file, **fine) if grain else few
    runs = [tmp_path / "HERE", tmp_path / "THERE"]
    for run, far in zip(runs, ((), ("--executor", "ray", "--workers", "2")), strict=True):
        found = cli("search", path, "--out", run, *far)
        assert found.status == 0, found.err
    here, there = ([e["state"] for e in events(run) if e["kind"] == "learned"] for run in runs)
    assert len(here) > 2
    assert there == here


def drawn_as_a_curve(run: Path, cli: Cli) -> None:
    """The nine points of a learned front: named in `show`, and a line with their errors in the report."""
    results = Results.load(run)
    (curve,) = curves(results)
    shown = json.loads(cli("show", run, "--json").out)
    on_front = {entry["number"]: entry["tradeoff"] for entry in shown["front"] if "tradeoff" in entry}
    assert on_front == {row.number: row.tradeoff for row in curve if row.number in on_front}
    told = f"{len(on_front)} of its 9 points are"
    assert told in " ".join(cli("show", run).out.split())
    assert cli("report", run, "--out", run.with_suffix(".html")).status == 0
    assert "learned curve, held-out items" in run.with_suffix(".html").read_text()
    figure = with_curves(front(results), results)
    (trace,) = (each for each in figure.data if each.name == "learned curve, held-out items")
    assert trace.mode == "lines+markers"
    for place, row in enumerate(curve):
        assert row.confirmed is not None
        (x, error), (y, _) = row.confirmed["math_ja"], row.confirmed["lists"]
        assert (trace.x[place], trace.y[place], trace.error_x.array[place]) == pytest.approx((x, y, 1.96 * error))


def test_two_objectives_give_a_front_of_one_function(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    path = learning(run_file, fitness=fitness("math_ja", "lists"), budget={"item_evaluations": 4000})
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    results = Results.load(run)
    points = {n: asked.tradeoff for n, asked in results.state.candidates.items() if asked.tradeoff is not None}
    assert len(points) == 9
    assert all(sum(weights.values()) == pytest.approx(1) for weights in points.values())
    shares = [weights["math_ja"] for weights in points.values()]
    assert shares == sorted(shares)
    exact, at_point = (between(results, f"tradeoff:{share}")[0] for share in (0.5, shares[6]))
    assert at_point.digest() == results.recipe(list(points)[6]).digest()
    assert exact.digest() == results.recipe(list(points)[4]).digest()
    mixed, (low, high) = (between(results, "tradeoff:0.6")[0], (results.recipe(list(points)[n]) for n in (4, 5)))
    assert any(low.tensors[name] != high.tensors[name] for name in low.tensors)
    for name, weights in mixed.tensors.items():
        ends = zip(low.tensors[name], high.tensors[name], strict=True)
        assert all(min(e) - 1e-6 <= w <= max(e) + 1e-6 for w, e in zip(weights, ends, strict=True))
    out = tmp_path / "OUT"
    assert cli("export", run, "--out", tmp_path / "RECIPE", "--format", "recipe").status == 0
    prepared = prepare(load_run(tmp_path / "RECIPE/run.yaml"), None, QUIET)  # With what was worked out written down.
    prepared.means.close()
    assert prepared.file.spec == results.file.spec
    done = cli("export", run, "--pick", "tradeoff:0.6", "--out", out)
    assert done.status == 0, done.err
    assert "nobody has scored" in done.out + done.err
    drawn_as_a_curve(run, cli)
    refused(cli("export", run, "--pick", "tradeoff:1.5", "--out", tmp_path / "NO"), "--pick", "1.5", "0 to 1")


def test_one_model_of_two_objectives_weighs_them_as_they_say(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run, both = tmp_path / "RUN", fitness("math_ja", "lists")
    both["objectives"]["lists"]["weight"] = 3  # type: ignore[index]
    optimizer = {"kind": "gradient", "front": False}
    found = cli("search", learning(run_file, fitness=both, optimizer=optimizer), "--out", run)
    assert found.status == 0, found.err
    results = Results.load(run)
    points = {n: asked.tradeoff for n, asked in results.state.candidates.items() if asked.tradeoff is not None}
    assert list(points.values()) == [{"math_ja": 0.25, "lists": 0.75}]
    looks = [event for event in events(run) if event["kind"] == "learned"]
    sums = [0.25 * look["losses"]["math_ja"] + 0.75 * look["losses"]["lists"] for look in looks]
    assert min(sums) < 0.95 * sums[0], "nothing was learned"
    refused(cli("export", run, "--pick", "tradeoff:0.5", "--out", tmp_path / "NO"), "no front of two objectives")


def test_the_grain_is_what_the_items_bear_and_slopes_follow_from_it(run_file: Write, tmp_path: Path) -> None:
    grains = {}
    for search in (48, 200):
        items = {"search": search, "confirm": 24, "group": "group"}
        plain = {"space": "learned", "optimizer": None, "budget": {"item_evaluations": 300}}
        path = learning(run_file, **plain, fitness=fitness() | {"items": items})
        prepared = prepare(load_run(path), None, QUIET)
        prepared.means.close()
        run = prepared.file.spec
        assert run.optimizer == GradientSpec()
        assert isinstance(run.space, BlendSpec)
        grains[search] = run.space.grain
    assert grains == {48: "tensor", 200: "column"}


def test_a_budget_of_seconds_leaves_time_for_what_was_learned(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    found = cli("search", learning(run_file, budget={"seconds": 8.0}), "--out", run)
    assert found.status == 0, found.err
    results = Results.load(run)
    learned = [n for n, asked in results.state.candidates.items() if asked.tradeoff is not None]
    assert len(learned) == 1
    assert results.rows[learned[0]].confirmed is not None
    assert results.state.learned[-1].step > 5


def test_a_larger_budget_learns_on_from_where_it_was(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    path = learning(run_file, budget={"evaluations": 120})
    assert cli("search", path, "--out", run).status == 0
    first = Results.load(run).state.learned
    assert {event.descent for event in first} == {0}
    found = cli("resume", run, "--budget", 240)
    assert found.status == 0, found.err
    learned = Results.load(run).state.learned
    assert learned[: len(first)] == first
    assert {event.descent for event in learned} == {0, 1}
    assert learned[len(first)].losses["math_ja"] == min(event.losses["math_ja"] for event in first)


def test_what_has_no_slopes_is_refused(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    refused(cli("search", learning(run_file, space="dataflow-small"), "--out", tmp_path / "1"), "optimizer", "blend")
    cma = learning(run_file, optimizer="cma")
    refused(cli("search", cma, "--out", tmp_path / "3"), "space.grain", "cma")
    held = learning(run_file, optimizer={"kind": "gradient", "held": 48})
    refused(cli("search", held, "--out", tmp_path / "2"), "optimizer.held", "48 of 48")
