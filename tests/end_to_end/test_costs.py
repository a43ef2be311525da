"""Quality against size: searches with costs among their objectives, and everything that shows them."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import journals
import pytest
import yaml
from conftest import DEMO_MODELS, ROOT, Typed, story
from safetensors.torch import load_file
from simulated import EXPERTS, GROUPS, PARENTS, SPACE, UNIFORM, go_on, make_world

import evomerge
from evomerge.assemble import load
from evomerge.errors import SpecError
from evomerge.execute import Evaluate, Executor, InlineExecutor
from evomerge.fitness import EstimatorSpec, Fitness, Items, Objective
from evomerge.items import COST, ItemTable
from evomerge.results import Results
from evomerge.space import bind
from evomerge.spec import Budget, CmaSpec, Models, Nsga2Spec, OptimizerSpec, RunSpec, TpeSpec, load_run
from evomerge.store import RunFile, RunStore
from evomerge.trial import Evaluation, Failure, Work

Cli = Callable[..., Typed]
Write = Callable[..., Path]
WEIGHTS = 541_200
"""Of each of the demo's models."""


def costly(*, search: int = 16, **changes: object) -> dict[str, object]:
    return {
        "include": [str(ROOT / "fitness/demo")],
        "objectives": {"maths": {"task": "math_ja", "metric": "acc"}, "size": {"cost": "parameters"}},
        "items": {"search": search, "confirm": 24, "group": "group"},
        "estimator": {"items": 8, "rungs": [4], "refresh": 0.2},
        **changes,
    }


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose candidates all cost the same, as those of a space of blends do."""
    folder = tmp_path_factory.mktemp("costs")
    plain = {
        "models": {"base": str(DEMO_MODELS / "base")}
        | {"experts": {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}},
        "space": "per-group",
        "fitness": costly(),
        "budget": {"evaluations": 30},
        "seed": 5,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    evomerge.search(load_run(folder / "run.yaml"), folder / "RUN")
    return folder / "RUN"


def test_all_that_costs_the_same_is_told_apart_by_quality(merged: Path) -> None:
    results = load(merged)
    assert [row.search["size"] for row in results.rows.values() if row.search] == [(WEIGHTS, 0.0)] * len(results.rows)
    told = [o.utilities for event in results.state.told for o in event.observations]
    assert all(utilities is not None and utilities[1] == -1.0 for utilities in told)
    assert len(results.front) == 1, "of equal cost, nothing but quality counts"
    assert len(results.finalists) >= 8, "and the luckiest by search numbers is not the only one that is confirmed"
    assert results.best is not None
    assert results.best.confirmed is not None
    assert results.best.confirmed["maths"][0] == max(
        row.confirmed["maths"][0] for row in (results.rows[n] for n in results.finalists) if row.confirmed
    )


def test_every_view_shows_an_exact_number(merged: Path, cli: Cli, tmp_path: Path) -> None:
    found = json.loads(cli("show", merged, "--json").out)
    entry = found["front"][0]
    assert entry["search"]["size"] == entry["shrunken"]["size"] == entry["confirmed"]["size"] == [WEIGHTS, 0.0]
    assert entry["interval"]["size"] == [WEIGHTS, WEIGHTS]
    assert entry["paired"]["best_parent"]["size"] == [0.0, 0.0]
    assert found["hypervolume"]["front"] > 0
    text = cli("show", merged).out
    assert f"{WEIGHTS:,}" in text
    assert f"{WEIGHTS}.000" not in text
    head, first, *_ = (line.split(",") for line in cli("show", merged, "--csv").out.splitlines())
    assert first[head.index("size search") : head.index("size confirmed low")] == [str(WEIGHTS), "0"] * 3
    assert cli("report", merged, "--out", tmp_path / "r.html").status == 0
    page = (tmp_path / "r.html").read_text()
    assert f"<td>{WEIGHTS:,}</td>" in page
    assert "size (lower is better)" in page
    assert "size: on average over the finalists" not in page, "an exact number is not optimistic"
    assert cli("export", merged, "--pick", "size", "--format", "recipe", "--out", tmp_path / "M").status == 0
    card = (tmp_path / "M/README.md").read_text()
    assert f"| size | {WEIGHTS:,} | {WEIGHTS:,} | {WEIGHTS:,} | +0 (base) |" in card


def test_a_plan_and_a_score_show_costs(merged: Path, cli: Cli, run_file: Write, tmp_path: Path) -> None:
    found = cli("plan", run_file(fitness=costly()))
    assert found.status == 0, found.err
    assert f"size: {WEIGHTS:,} parameters in an unchanged parent; lower is better" in found.out
    fitness = tmp_path / "fitness.yaml"
    objectives = {"maths": {"task": "math_ja"}, "depth": {"cost": "layers"}, "size": {"cost": "parameters"}}
    fitness.write_text(yaml.safe_dump(costly(objectives=objectives)))
    assert cli("export", merged, "--format", "recipe", "--out", tmp_path / "M").status == 0
    for model in (DEMO_MODELS / "maths", tmp_path / "M/recipe.yaml"):
        for items in ("confirm", "all"):
            found = cli("score", model, "--fitness", fitness, "--items", items, "--json")
            assert found.status == 0, found.err
            values = json.loads(found.out)["objectives"]
            assert (values["depth"], values["size"]) == ([6.0, 0.0], [WEIGHTS, 0.0])
    plain = yaml.safe_load((tmp_path / "M/recipe.yaml").read_text())
    each = sum(t.numel() for name, t in load_file(DEMO_MODELS / "base/model.safetensors").items() if ".0." in name)
    layers = plain["layers"]
    for depth in (4, 8):
        plain["layers"] = [layers[i % 6] for i in range(depth)]
        (tmp_path / "deep.yaml").write_text(yaml.safe_dump(plain))
        found = cli("score", tmp_path / "deep.yaml", "--fitness", fitness, "--json")
        assert found.status == 0, found.err
        values = json.loads(found.out)["objectives"]
        assert (values["depth"], values["size"]) == ([depth, 0.0], [WEIGHTS + (depth - 6) * each, 0.0])
    text = cli("score", DEMO_MODELS / "maths", "--fitness", fitness).out
    assert f"{WEIGHTS:,}" in text
    assert f"{WEIGHTS:,} ±" not in text


@pytest.mark.parametrize(
    ("optimizer", "scalarisation"),
    [("cma", "weighted_sum"), ("cma", "chebyshev"), ("nsga2", "weighted_sum"), ("tpe", "weighted_sum")],
)
def test_every_optimiser_bears_a_cost_that_never_changes(
    optimizer: str, scalarisation: str, cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    fitness = costly(scalarisation=scalarisation)
    path = run_file(fitness=fitness, optimizer=optimizer, space="per-group", budget={"evaluations": 26})
    found = cli("search", path, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    results = load(tmp_path / "RUN")
    assert not results.to_json()["failures"]
    lines = (tmp_path / "RUN/journal.jsonl").read_bytes().splitlines(keepends=True)
    whole = story(tmp_path / "RUN")
    for cut in (len(lines) // 3, 2 * len(lines) // 3, len(lines) - 3):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "RUN", run)
        journals.cut(run, cut)
        assert cli("resume", run).status == 0
        assert story(run) == whole, f"cut after {cut} lines"


def test_a_front_of_quality_against_depth(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    """One model with layers left out: whatever came out is as deep, and as large, as its recipe says."""
    objectives = {"lists": {"task": "lists", "metric": "acc"}, "depth": {"cost": "layers"}}
    models = {"experts": {"lists": str(DEMO_MODELS / "lists")}, "base": str(DEMO_MODELS / "base")}
    fitness = costly(objectives=objectives, search=24)
    path = run_file(models=models, space="prune-layers", fitness=fitness, budget={"evaluations": 30})
    found = cli("search", path, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    results = load(tmp_path / "RUN")
    depths = {row.number: row.confirmed["depth"][0] for row in results.front if row.confirmed}
    assert len(set(depths.values())) == len(results.front) >= 2
    assert all(depth == len(results.recipe(number).layers) for number, depth in depths.items())
    smallest = results.pick("depth")
    assert depths[smallest.number] == min(depths.values()) < 6
    gaps = results.best_parent(smallest)
    assert gaps["depth"][1] == (min(depths.values()) - 6, 0.0)
    assert gaps["lists"][1][1] > 0
    told = {o.number: o.utilities for event in results.state.told for o in event.observations}
    assert (told[smallest.number] or ())[1] == -min(depths.values()) / 6


class Norms:
    """A scorer of one's own."""

    items: Mapping[str, Sequence[str]] = {"norms": [str(i) for i in range(24)]}

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        size = float(sum(p.float().square().sum() for name, p in model.named_parameters() if "mlp.up" in name)) ** 0.5
        return {"norms": {"score": [(size * (1 + int(k))) % 1 for k in items["norms"]]}}


def test_a_scorer_of_ones_own_goes_with_costs(run_file: Write, tmp_path: Path) -> None:
    fitness = {
        "objectives": {"norm": {"task": "norms"}, "depth": {"cost": "layers"}},
        "items": {"search": 8, "confirm": 8},
    }
    results = evomerge.search(load_run(run_file(fitness=fitness)), tmp_path / "RUN", scorer=Norms())
    assert results.best is not None
    assert results.best.confirmed is not None
    assert results.best.confirmed["depth"] == (6.0, 0.0)
    assert evomerge.resume(tmp_path / "RUN", budget=Budget(evaluations=18), scorer=Norms()).status == "finished"


# From here on models of several sizes: a simulated world, whose candidates lose a layer for each gene near a quarter,
# and with every layer a sixteenth of what they could solve.

OPTIMIZERS: dict[str, OptimizerSpec] = {
    "cma": CmaSpec(population=4),
    "nsga2": Nsga2Spec(population=8),
    "tpe": TpeSpec(),
}
WORLDS = {"task 0": make_world(28, 0, search=40)}


def layers_of(genome: Sequence[float]) -> int:
    return GROUPS - sum(0.1 < gene < 0.4 for gene in genome)


def priced(evaluate: Evaluate) -> Executor:
    """Takes off what lost layers knew, adds the costs that an evaluator would, and fails a few."""

    def priced_evaluation(work: Work) -> Evaluation:
        space = bind(SPACE, PARENTS)
        try:
            genome = space.encode(work.recipe)
        except SpecError:
            genome = UNIFORM
        found = evaluate(work)
        if work.number % 7 == 5:
            return found.model_copy(update={"outcome": Failure(stage="merge", reason="simulated")})
        assert not isinstance(found.outcome, Failure)
        depth, marks = layers_of(genome), found.outcome["task 0"]["acc"]
        places = range(len(marks)) if work.draw.places is None else work.draw.places["task 0"]
        left = tuple(0.0 if place % 16 < GROUPS - depth else mark for place, mark in zip(places, marks, strict=True))
        costs = {"layers": (float(depth),), "parameters": (100.0 * depth,)}
        return found.model_copy(update={"outcome": {"task 0": {"acc": left}, COST: costs}})

    return InlineExecutor(priced_evaluation)


def begin(folder: Path, optimizer: OptimizerSpec, scalarisation: str = "weighted_sum") -> RunStore:
    objectives = {"quality": Objective(task="task 0"), "depth": Objective(cost="layers", weight=0.2)}
    run = RunSpec(
        models=Models(experts={name: f"/{name}" for name in EXPERTS}),
        space=SPACE,
        fitness=Fitness(
            objectives=objectives,
            items=Items(),
            estimator=EstimatorSpec(items=8, rungs=(3, 5), refresh=0.3),
            scalarisation=scalarisation,
        ),
        optimizer=optimizer,
        budget=Budget(evaluations=60),
        seed=2,
    )
    table = ItemTable(
        tasks={task: world.items() for task, world in WORLDS.items()},
        costs={"layers": float(GROUPS), "parameters": 100.0 * GROUPS},
    )
    return RunStore.create(folder, RunFile(evomerge="test", spec=run, parents=PARENTS, start=(UNIFORM,)), table)


def searched(folder: Path, optimizer: str, scalarisation: str = "weighted_sum") -> Results:
    return go_on(WORLDS, begin(folder, OPTIMIZERS[optimizer], scalarisation), priced)


@pytest.mark.parametrize("scalarisation", ["weighted_sum", "chebyshev"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_search_finds_smaller_models_on_the_way(optimizer: str, scalarisation: str, tmp_path: Path) -> None:
    results = searched(tmp_path / "RUN", optimizer, scalarisation)
    assert results.to_json()["failures"], "failed candidates have no costs"
    front = [(row.confirmed or {}) for row in results.front]
    depths, qualities = [values["depth"][0] for values in front], [values["quality"][0] for values in front]
    assert len(set(depths)) == len(depths) >= 2, "one model of each depth"
    order = sorted(range(len(front)), key=lambda i: depths[i])
    assert [qualities[i] for i in order] == sorted(qualities), "a smaller model as good would have pushed it out"
    assert results.pick("depth").number == results.front[depths.index(min(depths))].number
    assert results.pick("quality").number == results.front[qualities.index(max(qualities))].number
    assert min(depths) < GROUPS
    volumes = results.hypervolumes()
    assert volumes is not None
    assert volumes["front"] > volumes["fixed"] > 0, "smaller models count, though all fixed recipes are better"
    for row in results.front:
        asked = results.state.candidates[row.number]
        assert row.confirmed is not None
        assert asked.genome is not None
        assert row.confirmed["depth"] == (layers_of(asked.genome), 0.0)
        assert row.interval is not None
        assert row.interval["depth"] == (layers_of(asked.genome),) * 2


def test_finalists_are_the_front_by_search_numbers_and_what_comes_next(tmp_path: Path) -> None:
    results = searched(tmp_path / "RUN", "nsga2")
    rows = [row for row in results.rows.values() if row.shrunken and row.origin != "baseline"]
    shown = {row.number: (row.shrunken or {}) for row in rows}
    points = {number: (values["quality"][0], -values["depth"][0]) for number, values in shown.items()}
    front = {
        number
        for number, point in points.items()
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in points.values()
        )
    }
    assert front <= set(results.finalists)
    assert 8 <= len(results.finalists) <= 24
    assert len(results.choose_finalists(20)) == max(20, len(front))


def test_a_search_with_costs_cut_at_any_line_goes_on_the_same(tmp_path: Path) -> None:
    searched(tmp_path / "whole", "nsga2")
    whole = story(tmp_path / "whole")
    for cut in journals.places(tmp_path / "whole", 83, "costs"):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        journals.cut(run, cut)
        go_on(WORLDS, RunStore(run, write=True), priced)
        assert story(run) == whole, f"cut after {cut} lines"
        shutil.rmtree(run)


def test_every_view_of_models_of_several_sizes(tmp_path: Path, cli: Cli) -> None:
    run = tmp_path / "RUN"
    results = searched(run, "nsga2")
    text = cli("show", run).out
    smallest = results.pick("depth")
    assert smallest.confirmed is not None
    gap = smallest.confirmed["depth"][0] - GROUPS
    assert f" {gap:+.0f} " in text, "the difference to a parent, without an error"
    found = json.loads(cli("show", run, "--json").out)
    pairs = [entry["paired"]["best_parent"]["depth"] for entry in found["front"]]
    assert [gap, 0.0] in pairs
    assert cli("report", run, "--out", tmp_path / "r.html").status == 0
    assert "depth (lower is better)" in (tmp_path / "r.html").read_text()
