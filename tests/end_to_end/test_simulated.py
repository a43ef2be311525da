"""Whole searches on simulated responses: resumed bit for bit, better than what they are compared with, honest."""

import shutil
from pathlib import Path

import pytest
from conftest import story
from simulated import Plan, World, begin, go_on, make_world

from evomerge.fitness import EstimatorSpec
from evomerge.spec import Budget, CmaSpec, Nsga2Spec, OptimizerSpec, TpeSpec
from evomerge.store import RunStore

SMALL = EstimatorSpec(items=8, rungs=(3, 5), refresh=0.3)
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "cma": CmaSpec(population=4),
    "nsga2": Nsga2Spec(population=4),
    "tpe": TpeSpec(),
}


def worlds(count: int = 1, search: int = 40) -> dict[str, World]:
    return {f"task {i}": make_world(28, i, search=search) for i in range(count)}


def plan(name: str, **changes: object) -> Plan:
    values = {"estimator": SMALL, "budget": Budget(evaluations=24), "seed": 1, "optimizer": OPTIMIZERS[name]}
    return Plan(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_with_fresh_items_cut_at_any_line_goes_on_the_same(name: str, tmp_path: Path) -> None:
    """Same draws, same candidates, same rungs and refreshes, same estimates."""
    here = worlds(2 if name == "nsga2" else 1)
    go_on(here, begin(here, plan(name), tmp_path / "whole"))
    whole = story(tmp_path / "whole")
    purposes = {event["purpose"] for event in whole if event["kind"] == "assigned"}
    assert purposes >= {"search", "refresh", "confirm"}
    lines = (tmp_path / "whole/journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), int(__import__("os").environ.get("STRIDE", 17))):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        (run / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        go_on(here, RunStore(run, write=True))
        assert story(run) == whole, f"cut after {cut} of {len(lines)} lines"
        shutil.rmtree(run)
