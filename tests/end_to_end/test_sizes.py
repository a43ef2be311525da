"""What `plan` says of a run's disk is what the run takes."""

import json
from pathlib import Path

import pytest

from evomerge.assemble import plan
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.spec import load_run
from evomerge.store import RunStore, Shape, expected_bytes


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_run_takes_the_disk_that_was_foretold(name: str, finished: dict[str, Path]) -> None:
    run = finished[name]
    taken = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert taken / 1.5 < plan(run.with_suffix(".yaml")).run_bytes < taken * 1.5


def test_many_items_are_counted_where_they_are_listed_and_where_they_are_drawn(finished: dict[str, Path]) -> None:
    store = RunStore(finished["one"])
    run, parents = load_run(finished["one"].with_suffix(".yaml")), store.file.parents

    def size(items: int, drawn: int, candidates: int) -> int:
        ids = tuple(f"document {number}" for number in range(items))
        pool = Pool(ids=ids, clusters=ids)
        table = ItemTable(tasks={"task": TaskItems(search=pool, confirm=pool, metrics={"acc": True})})
        listed.append(len(json.dumps(table.to_plain())))
        estimator = run.fitness.estimator.model_copy(update={"items": drawn})
        fitness = run.fitness.model_copy(update={"estimator": estimator})
        spec = run.model_copy(update={"fitness": fitness})
        return expected_bytes(Shape(spec, table, parents, (), candidates, (), 0, 0))

    listed: list[int] = []
    assert size(20_000, 100, 10) > listed[-1] + 10 * 100 * (8 + 12 + 5)
    each = (size(20_000, 2_000, 1_000) - size(20_000, 2_000, 500)) / 500
    # Its place, its probability and its mark, each once, and a tenth of them again.
    assert 1.1 * 2_000 * (6 + 12 + 8) * 0.9 < each < 1.1 * 2_000 * (6 + 12 + 8) * 1.1 + 2_000
