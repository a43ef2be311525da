"""Items that neither the search nor the choice of its winner has seen; runs written before there were any."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_MODELS, Typed, events, small_fitness
from journals import cut, make_older

import evomerge
from evomerge.export.card import model_card
from evomerge.items import ItemTable
from evomerge.results import Results
from evomerge.spec import load_run

Cli = Callable[..., Typed]
Write = Callable[..., Path]
SEEN = "On report items, which neither search nor choice has seen"


@pytest.fixture
def run(run_file: Write, tmp_path: Path) -> Path:
    fitness: dict[str, Any] = small_fitness()
    fitness["items"]["report"] = 12
    evomerge.search(run_file(fitness=fitness, budget={"evaluations": 8}), tmp_path / "RUN")
    return tmp_path / "RUN"


def test_the_best_and_its_rivals_are_scored_on_report_items_last(run: Path, cli: Cli, tmp_path: Path) -> None:
    results = evomerge.load(run)
    assert results.best is not None
    reported = {row.number for row in results.rows.values() if row.report is not None}
    assert reported == {results.best.number, *(row.number for row in results.baselines)}
    assigned = [event for event in events(run) if event["kind"] == "assigned"]
    last = assigned[-len(reported) :]
    assert {event["draw"]["pool"] for event in last} == {"report"}
    assert {event["purpose"] for event in last} == {"confirm"}
    shown = json.loads(cli("show", run, "--json").out)
    value = shown["baselines"][0]["report"]["math_ja"]
    assert len(value) == 2
    (best,) = (entry for entry in shown["front"] if entry["number"] == shown["best"])
    assert best["report"]["math_ja"] == list((results.best.report or {})["math_ja"])
    assert sum("report" in entry for entry in shown["front"]) == len(reported & {e["number"] for e in shown["front"]})
    card = model_card(results, results.best, results.recipe(results.best.number), tmp_path / "M")
    assert SEEN in card and "12 of math_ja" in card
    assert cli("report", run, "--out", tmp_path / "r.html").status == 0
    assert SEEN in (tmp_path / "r.html").read_text()


def test_reported_values_are_those_of_scoring_the_model_alone(run: Path, cli: Cli, tmp_path: Path) -> None:
    results = evomerge.load(run)
    fitness = tmp_path / "fitness.yaml"
    fitness.write_text(json.dumps(load_run(tmp_path / "run.yaml").fitness.to_plain()))
    found = cli("score", DEMO_MODELS / "maths", "--fitness", fitness, "--items", "report", "--json")
    scored = json.loads(found.out)
    (maths,) = (row for row in results.baselines if row.name == "maths")
    assert scored["items"] == {"math_ja": 12}
    assert scored["objectives"]["math_ja"] == pytest.approx(list((maths.report or {})["math_ja"]))
    whole = json.loads(cli("score", DEMO_MODELS / "maths", "--fitness", fitness, "--items", "all", "--json").out)
    assert whole["items"] == {"math_ja": 16 + 24 + 12}


def test_a_plan_counts_items_and_tokens(cli: Cli, run_file: Write) -> None:
    fitness: dict[str, Any] = small_fitness()
    fitness["items"]["report"] = 12
    found = cli("plan", run_file(fitness=fitness))
    assert "math_ja: 16 search, 24 confirm and 12 report items of its test split; acc, perplexity" in found.out
    count = re.search(r"to score it, ([\d,]+) tokens", found.out)
    assert count is not None
    assert 8 * 10 < int(count[1].replace(",", "")) < 8 * 100


def test_a_run_without_report_items_says_nothing_of_them(finished: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    assert '"report"' not in cli("show", finished["one"], "--json").out
    cli("report", finished["one"], "--out", tmp_path / "r.html")
    assert SEEN not in (tmp_path / "r.html").read_text()


def test_a_run_stopped_before_its_report_items_goes_on_with_them(run: Path) -> None:
    first = next(i for i, event in enumerate(events(run)) if event.get("draw", {}).get("pool") == "report")
    before = evomerge.load(run).to_json()
    cut(run, first + 3)
    after = evomerge.resume(run).to_json()
    for key in ("baselines", "front", "best"):
        assert after[key] == before[key]


def test_a_run_written_before_items_had_weights_and_costs_goes_on(copy_of_run: Callable[[str], Path]) -> None:
    run = make_older(copy_of_run("one"))
    path = run / "responses/items.json"
    plain = json.loads(path.read_text())
    for task in plain["tasks"].values():
        for name in ("split", "benchmark"):
            task.pop(name)
        for pool in ("search", "confirm"):
            assert task[pool].pop("costs")
    path.write_text(json.dumps(plain))
    budget = evomerge.load(run).state.budget.model_copy(update={"evaluations": 44})
    longer = evomerge.resume(run, budget=budget)
    assert len(longer.state.finished()) > 40
    items = plain["tasks"]["math_ja"]["search"]["ids"]
    items[0], items[1] = items[1], items[0]
    then = ItemTable.model_validate_json(json.dumps(plain))
    assert longer.store.table.changes_since(then) is not None


def test_a_stock_test_split_is_named_wherever_numbers_are(copy_of_run: Callable[[str], Path], cli: Cli) -> None:
    run = make_older(copy_of_run("one"))
    path = run / "responses/items.json"
    path.write_text(path.read_text().replace('"split": "test"', '"split": "test", "stock": true'))
    results = Results.load(run)
    (caveat,) = results.store.table.caveats()
    assert caveat.startswith("math_ja: the search uses its test split")
    row = results.best
    assert row is not None
    for picked in (row, row.model_copy(update={"confirmed": None})):
        assert f"**{caveat}**" in model_card(results, picked, results.recipe(row.number), run / "M")
    cli("report", run)
    assert caveat in (run / "report.html").read_text()


class Own:
    """Marks a model on items of its own."""

    items: Mapping[str, Sequence[str]] = {"own": [str(i) for i in range(9)]}

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        return {"own": {"score": [float(key) for key in items["own"]]}}


def test_a_callable_has_report_items_too_and_no_split(run_file: Write, tmp_path: Path) -> None:
    fitness = {"objectives": {"x": {"task": "own"}}, "items": {"search": 3, "confirm": 3, "report": 3}}
    path = run_file(fitness=fitness, budget={"evaluations": 4})
    results = evomerge.search(path, tmp_path / "RUN", scorer=Own())
    items = results.store.table.tasks["own"]
    assert sorted(items.whole().ids) == sorted(Own.items["own"])
    assert (items.split, items.stock, items.search.costs) == (None, False, ())
    assert results.best is not None
    assert results.best.report == {"x": pytest.approx((sum(map(float, items.report.ids)) / 3, 0), abs=2)}
