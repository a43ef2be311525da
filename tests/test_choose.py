"""The optimiser that a run gets where its file leaves that open, and that it says why, wherever a user looks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Typed, edited

from evomerge.assemble import load, plan
from evomerge.assemble.choose import choose
from evomerge.fitness import EstimatorSpec, Fitness, Objective
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.recipe import Folder, Parents, Slerp, Ties
from evomerge.space import BlendSpec, PathSpec, SpaceSpec, SwapSpec
from evomerge.spec import AutoSpec, Budget, CmaSpec, Models, RunSpec, load_run, spec_of
from evomerge.store import RunStore
from evomerge.terminal import plan_text

Cli = Callable[..., Typed]
Write = Callable[..., Path]

PARENTS = Parents(
    models={name: Folder(path=f"/{name}", digest=f"sha256:{name}") for name in ("base", "a", "b")},
    base="base", experts=("a", "b"), layers=6, outer=("embeddings", "norm", "head"), dtype="bfloat16",
)  # fmt: skip


def items(golds: bool, count: int = 128) -> TaskItems:
    ids = tuple(map(str, range(count)))
    pool = Pool(ids=ids, clusters=ids, golds=((0,),) * count if golds else ())
    return TaskItems(search=pool, confirm=pool, metrics={"acc": True, "perplexity": False})


TABLE = ItemTable(
    tasks={"scored": items(True), "other": items(False), "few": items(True, 8)}, costs={"layers": 6, "parameters": 9}
)
SCORED, OTHER, DEPTH = Objective(task="scored"), Objective(task="other"), Objective(cost="layers")
LAYERS, GROUPS = BlendSpec(), BlendSpec(groups=2)
TRIMMED = BlendSpec(operator=Ties(), density=(0.2, 1.0), groups=2)


def chosen(
    space: SpaceSpec,
    *objectives: Objective,
    estimator: EstimatorSpec | None = None,
    scorer: bool = False,
    **budget: int,
) -> str:
    named = {f"objective {place}": objective for place, objective in enumerate(objectives)}
    run = RunSpec(
        models=Models(base="/base", experts={"a": "/a", "b": "/b"}),
        space=space,
        fitness=Fitness(objectives=named, estimator=estimator or EstimatorSpec()),
        budget=Budget.model_validate(budget or {"evaluations": 200}),
    )
    used = ItemTable(tasks={key: TABLE.tasks[key] for key in run.fitness.uses()}, costs=TABLE.costs)
    found = choose(run, PARENTS, used, scorer=scorer)
    return f"{found.optimizer.kind}: {found.why}"


@pytest.mark.parametrize(
    ("space", "objectives", "more", "kind", "words"),
    [
        (LAYERS, [SCORED], {}, "gradient", "every objective has scores"),
        (LAYERS, [SCORED, SCORED], {}, "gradient", "weights have slopes"),
        (LAYERS, [SCORED], {"item_evaluations": 6000}, "gradient", "every objective"),
        (LAYERS, [SCORED], {"seconds": 60}, "gradient", "every objective"),
        (LAYERS, [SCORED, DEPTH], {}, "gradient", "every objective"),
        (LAYERS, [Objective(task="scored", metric="perplexity")], {}, "gradient", "every objective"),
        (BlendSpec(operator=Slerp(), groups=2), [SCORED], {}, "gradient", "every objective"),
        (BlendSpec(groups="model", grain="auto"), [SCORED], {}, "gradient", "grain"),
        (LAYERS, [SCORED], {"evaluations": 20}, "cma", "the budget is too small to learn; one objective"),
        (GROUPS, [SCORED], {"evaluations": 60, "item_evaluations": 300}, "cma", "too small"),
        (GROUPS, [Objective(task="few")], {}, "surrogate", "too few search items"),
        (TRIMMED, [SCORED], {}, "surrogate", "densities have no slopes; every objective has scores, and 20 genes"),
        (TRIMMED, [SCORED], {"evaluations": 79}, "cma", "densities"),
        (BlendSpec(operator=Ties(), density=(0.2, 1.0)), [SCORED], {}, "cma", "densities"),
        (LAYERS, [OTHER], {}, "cma", "objective 0 has no scores; one objective, and mostly real genes"),
        (LAYERS, [SCORED, OTHER], {}, "nsga2", "objective 1 has no scores; several objectives"),
        (LAYERS, [Objective(task="scored", direction="min")], {}, "cma", "get worse"),
        (LAYERS, [SCORED], {"estimator": EstimatorSpec(items=10)}, "cma", "names an estimator"),
        (GROUPS, [SCORED], {"scorer": True}, "surrogate", "a scorer in Python has no slopes; every objective"),
        (LAYERS, [OTHER], {"scorer": True}, "cma", "scorer"),
        (PathSpec(), [SCORED], {}, "nsga2", "what a path space chooses has no slopes; many genes are discrete"),
        (PathSpec(), [SCORED, DEPTH], {}, "nsga2", "several objectives"),
        (SwapSpec(), [SCORED], {}, "nsga2", "swap"),
    ],
)  # fmt: skip
def test_what_is_left_open_suits_space_fitness_and_budget(
    space: SpaceSpec, objectives: list[Objective], more: dict[str, Any], kind: str, words: str
) -> None:
    found = chosen(space, *objectives, **more)
    assert found.startswith(f"{kind}: ")
    assert words in found


@pytest.mark.parametrize("given", ["auto", {"kind": "auto"}, None, ...])
def test_auto_and_nothing_are_the_same(given: Any, run_file: Write, tmp_path: Path) -> None:
    path = edited(run_file(), lambda plain: given is ... or plain.update(optimizer=given))
    assert load_run(path).optimizer == AutoSpec()
    plain = yaml.safe_load(path.read_text())
    staged = {key: value for key, value in plain.items() if key not in ("space", "optimizer")}
    stage = {"space": "model-wide", "share": 1.0} | ({} if given is ... else {"optimizer": given})
    spec = spec_of(staged | {"stages": [stage]})
    assert not isinstance(spec, RunSpec)
    assert spec.run(0, {}).optimizer == AutoSpec()


def test_whatever_is_named_is_taken() -> None:
    run = RunSpec(
        models=Models(experts={"a": "/a"}),
        space=LAYERS,
        fitness=Fitness(objectives={"it": SCORED}),
        optimizer=CmaSpec(),
    )
    assert choose(run, PARENTS, TABLE) == (CmaSpec(), None)


def test_plan_show_and_report_say_what_was_chosen_and_why(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    fitness = {
        "include": [str(ROOT / "fitness/demo")],
        "objectives": {"sums": {"task": "math_ja", "metric": "acc"}},
        "items": {"search": 48, "confirm": 24, "group": "group"},
    }
    path, run = run_file(fitness=fitness, space="per-layer", budget={"item_evaluations": 900}), tmp_path / "RUN"
    planned = plan(path)
    assert planned.optimizer == "gradient"
    assert planned.why == "every objective has scores, and the space's weights have slopes"
    assert f"optimiser  gradient: {planned.why}" in plan_text(planned)
    assert any("learned" in note for note in planned.notes), "weights finer than its genes"
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    results = load(run)
    assert any(asked.tradeoff for asked in results.state.candidates.values()), "it was learned"
    assert RunStore(run).file.why == planned.why
    assert json.loads(cli("show", run, "--json").out)["optimizer"] == {"kind": "gradient", "why": planned.why}
    assert f"optimiser: gradient; {planned.why}" in " ".join(cli("show", run).out.split())
    assert cli("report", run).status == 0
    assert planned.why.replace("'", "&#x27;") in (run / "report.html").read_text()
    named = run_file("named.yaml", fitness=fitness, space="per-layer", optimizer="cma", budget={"evaluations": 8})
    assert plan(named).why is None
