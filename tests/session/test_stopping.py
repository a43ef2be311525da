"""Searches that end before their budget is spent: by a target that is reached, or a front that has stopped growing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import journals
import pytest
from conftest import Typed, events, story
from simulated import Plan, begin, go_on, make_world
from troubled import Troubled

from evomerge.assemble import search
from evomerge.fitness import EstimatorSpec
from evomerge.results import Results, hypervolume
from evomerge.spec import Budget, CmaSpec, Nsga2Spec, OptimizerSpec, TpeSpec, load_run
from evomerge.store import RunStore

MANY = 300
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "cma": CmaSpec(population=6),
    "nsga2": Nsga2Spec(population=6),
    "cma steady": CmaSpec(population=6, mode="steady"),
    "tpe": TpeSpec(),
}


def searched(name: str, budget: Budget, folder: Path, items: int = 20) -> Results:
    worlds = {f"task {i}": make_world(28, i, search=40) for i in range(2 if name == "nsga2" else 1)}
    plan = Plan(estimator=EstimatorSpec(items=items), budget=budget, seed=1, optimizer=OPTIMIZERS[name])
    found = go_on(worlds, begin(worlds, plan, folder))
    for cut in journals.places(folder, 101, name):
        run = folder.with_name(f"cut-{cut}")
        shutil.copytree(folder, run)
        journals.cut(run, cut)
        go_on(worlds, RunStore(run, write=True))
        assert story(run) == story(folder), f"cut after {cut} lines"
        shutil.rmtree(run)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_that_has_stalled_ends(name: str, tmp_path: Path) -> None:
    """After so many candidates that added nothing, counted anew; wherever it is cut, it ends there again."""
    found = searched(name, Budget(evaluations=MANY, stall=40), tmp_path / "RUN")
    assert "stalled" in found.to_json()["ended"]
    assert 40 < len(found.state.finished()) < MANY
    assert found.is_confirmed
    assert [event["kind"] for event in events(tmp_path / "RUN")].count("ended") == 1
    told = told_before_the_end(found)
    assert share_of_the_last(found, told, 40) <= 0.01
    known = len(dict.fromkeys(number for one in told for number, _ in one))
    for count in range(1, len(told)):
        before = told[:count]
        if len(dict.fromkeys(number for one in before for number, _ in one)) > 40:
            assert share_of_the_last(found, before, 40) > 0.01, f"it might have ended before {known} candidates"


Told = list[tuple[int, tuple[float, ...]]]


def told_before_the_end(found: Results) -> list[Told]:
    kinds = found.store.events()
    last = next(place for place, event in enumerate(kinds) if event.kind == "ended")
    observed = [event.observations for event in kinds[:last] if event.kind == "told"]
    return [[(o.number, o.utilities) for o in each if o.number is not None and o.utilities] for each in observed]


def share_of_the_last(found: Results, told: list[Told], last: int) -> float:
    """What the candidates that were first told of last add to the hypervolume of the others."""
    points = dict(pair for one in told for pair in one)
    named = [number for number, asked in found.state.candidates.items() if asked.name is not None]
    known = points | {each.number: each.utilities for each in found.appraiser.observe(named) if each.utilities}
    fixed = [known[number] for number in named if number in known]
    reference = [min(column) for column in zip(*fixed, strict=True)]
    rows = list(points.values())
    without = hypervolume(rows[:-last], reference)
    return hypervolume(rows, reference) / without - 1 if without else float("inf")


def test_fixed_recipes_outside_the_space_count(run_file: Callable[..., Path], tmp_path: Path) -> None:
    """Where no fixed recipe is in the space there is something to be better than all the same."""
    fitness = {"objectives": {"a": {"task": "norms", "metric": "a"}}, "items": {"search": 24, "confirm": 8}}
    path = run_file(
        space={"operator": "slerp", "weight": [0.25, 0.4]}, fitness=fitness, budget={"evaluations": 80, "stall": 12}
    )
    (tmp_path / "calm").mkdir()
    found = search(load_run(path), tmp_path / "RUN", scorer=Troubled(str(tmp_path / "calm")))
    inside = [asked for asked in found.state.candidates.values() if asked.name and asked.genome is not None]
    assert not inside
    told = told_before_the_end(found)
    assert share_of_the_last(found, told, 12) <= 0.01
    assert 12 < len(found.state.finished()) < 80


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_that_has_reached_its_target_ends(name: str, tmp_path: Path) -> None:
    """In all objectives by one candidate, and not by luck."""
    target = {f"task {i}": 0.62 for i in range(2 if name == "nsga2" else 1)}
    found = searched(name, Budget(evaluations=MANY, target=target), tmp_path / "RUN")
    reason = found.to_json()["ended"]
    assert reason.endswith("has reached the target")
    assert 8 <= len(found.state.finished()) < MANY
    lucky = [n for n in found.state.told_numbers if reaches(found.appraiser.values(n), target)]
    assert int(reason.split()[1]) in lucky


def reaches(values: object, target: dict[str, float]) -> bool:
    assert isinstance(values, dict)
    return all(values[label].value > wanted - 0.05 for label, wanted in target.items())


def test_a_search_that_ended_goes_on_with_another_budget(
    run_file: Callable[..., Path], cli: Callable[..., Typed], tmp_path: Path
) -> None:
    run = tmp_path / "RUN"
    path = run_file(space="model-wide", budget={"evaluations": 60, "stall": 15})
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    told = json.loads(cli("show", run, "--json").out)
    assert told["state"] == "finished"
    assert told["evaluations"]["done"] < 60
    assert f"the search ends before its budget is spent: {told['ended']}" in found.err
    assert f"the search ended early, {told['ended']}" in cli("show", run).out
    before = story(run)
    assert "is finished; a larger budget extends it" in cli("resume", run).err
    assert story(run) == before
    more = told["evaluations"]["done"] + 5
    assert cli("resume", run, "--budget", more).status == 0
    told = json.loads(cli("show", run, "--json").out)
    assert more - 2 <= told["evaluations"]["done"] <= more, "what is recommended may be known already"
    assert told["ended"] is None


def test_a_lower_target_is_reached_from_above(
    run_file: Callable[..., Path], cli: Callable[..., Typed], tmp_path: Path
) -> None:
    """Where less is better, as of a perplexity."""
    objectives = {"loss": {"task": "math_ja", "metric": "perplexity"}}
    fitness = {"include": [str(Path(__file__).parents[2] / "fitness/demo")], "objectives": objectives}
    fitness |= {"items": {"search": 16, "confirm": 24, "group": "group"}, "estimator": {"items": "all"}}
    for wanted, is_reached in ((1e6, True), (1e-6, False)):
        run = tmp_path / f"{wanted:g}"
        path = run_file(fitness=fitness, budget={"evaluations": 14, "target": {"loss": wanted}})
        assert cli("search", path, "--out", run).status == 0
        found = json.loads(cli("show", run, "--json").out)
        assert (found["ended"] is not None) == is_reached
        assert (found["evaluations"]["done"] < 14) == is_reached
