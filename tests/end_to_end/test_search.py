"""Searches as a user runs them: what they leave, that budgets are hard, that editing is enough."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DEMO_MODELS, Typed, events, small_fitness, story
from lm_tasks import write_tasks

from evomerge.assemble import load
from evomerge.presets import preset_names

Cli = Callable[..., Typed]
Write = Callable[..., Path]


def test_the_json_is_what_the_design_says(cli: Cli, finished: dict[str, Path]) -> None:
    found = json.loads(cli("show", finished["two"], "--json").out)
    assert found["state"] == "finished"
    assert found["evaluations"] == {"done": 40, "failed": 0, "budget": 40}
    assert found["objectives"] == ["math_ja", "lists"]
    assert {"merge", "score", "overhead"} <= set(found["seconds"])
    names = [baseline["name"] for baseline in found["baselines"]]
    assert {"base", "maths", "japanese", "lists", "uniform average", "ties 0.2"} <= set(names)
    assert len(names) == len(set(names))
    for baseline in found["baselines"]:
        assert set(baseline) == {"name", "search", "confirmed", "interval", "drift"}
    assert found["best"] in [entry["number"] for entry in found["front"]]
    for entry in found["front"]:
        assert set(entry) == {
            "number",
            "recipe",
            "items",
            "search",
            "shrunken",
            "confirmed",
            "interval",
            "paired",
            "drift",
        }
        assert entry["recipe"].startswith("sha256:")
        assert set(entry["paired"]) == {"best_parent", "best_fixed", "uniform"}
        for value, error in entry["confirmed"].values():
            assert 0 <= value <= 1
            assert error >= 0
        for label, (low, high) in entry["interval"].items():
            value, error = entry["confirmed"][label]
            assert 0 <= low <= value <= high <= 1
            assert high - low > 3 * error


def test_search_and_confirm_items_share_nothing(finished: dict[str, Path]) -> None:
    """Not an item, nor a group of items."""
    for run in finished.values():
        table = json.loads((run / "responses/items.json").read_text())
        for task in table["tasks"].values():
            assert not set(task["search"]["ids"]) & set(task["confirm"]["ids"])
            assert not set(task["search"]["clusters"]) & set(task["confirm"]["clusters"])


def test_show_reads_as_text_and_csv(cli: Cli, finished: dict[str, Path]) -> None:
    text = cli("show", finished["one"]).out
    assert "parents and fixed recipes (confirmed on held-out items)" in text
    assert "finalists, best first" in text
    assert "finished, 40 of 40 evaluations" in text
    lines = cli("show", finished["one"], "--csv").out.splitlines()
    assert lines[0].startswith("number,name,origin,recipe,math_ja search,math_ja search error")
    assert len(lines) == 1 + len(load(finished["one"]).rows)


def test_what_goes_the_slow_way_is_said(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    beams = {"num_beams": 2, "max_gen_toks": 2, "until": ["\n"], "do_sample": False}
    fitness = {
        "include": [str(write_tasks(tmp_path / "tasks"))],
        "objectives": {"x": {"task": "long", "generation": beams}},
        "items": {"search": 2, "confirm": 2},
    }
    found = cli("search", run_file(fitness=fitness, budget={"evaluations": 4}), "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    assert "generation goes through lm-eval's HFLM, which is slower, because of num_beams" in found.err


def test_the_same_seed_is_the_same_run_and_another_is_not(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    for name, seed in (("A", 3), ("B", 3), ("C", 4)):
        path = run_file(f"{name}.yaml", seed=seed, space="per-group", budget={"evaluations": 20})
        assert cli("search", path, "--out", tmp_path / name).status == 0
    assert story(tmp_path / "A") == story(tmp_path / "B")
    assert story(tmp_path / "A") != story(tmp_path / "C")


@pytest.mark.parametrize("optimizer", ["cma", "nsga2", "tpe", "random"])
@pytest.mark.parametrize("space", ["per-component", "ties", "dataflow", "frankenmerge", "layer-swap", "joint"])
def test_another_optimiser_or_space_is_an_edit_of_the_run_file(
    optimizer: str, space: str, cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    path = run_file(optimizer={"kind": optimizer}, space=space, budget={"evaluations": 16})
    found = cli("search", path, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    done = json.loads(cli("show", tmp_path / "RUN", "--json").out)
    assert done["evaluations"]["done"] == 16


@pytest.mark.parametrize("preset", preset_names("space"))
def test_every_space_preset_plans(preset: str, cli: Cli, run_file: Write) -> None:
    fitness = small_fitness()
    if preset.startswith("learned"):  # They say by themselves what they are judged on.
        del fitness["estimator"]
    found = cli("plan", run_file(space=preset, fitness=fitness))
    assert found.status == 0, found.err
    assert " genes over 6 layers" in found.out


@pytest.mark.parametrize("preset", ["demo", "demo-maths"])
def test_every_fitness_preset_plans(preset: str, cli: Cli, run_file: Write) -> None:
    found = cli("plan", run_file(fitness=preset))
    assert found.status == 0, found.err
    assert "confirm items" in found.out


def test_a_plan_says_what_will_happen(cli: Cli, run_file: Write) -> None:
    text = cli("plan", run_file(space="per-layer")).out
    for word in ("maths.layers.3.weight", "japanese.embeddings.weight", "16 search and 24 confirm items", "cpu"):
        assert word in text
    for line in ("parents", "space", "start", "task", "device", "cost", "duration", "memory", "disk"):
        assert any(row.startswith(line) for row in text.splitlines())


def test_budgets_are_hard(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run = tmp_path / "evaluations"
    assert cli("search", run_file("e.yaml", budget={"evaluations": 13}), "--out", run).status == 0
    assert len({e["number"] for e in events(run) if e["kind"] == "asked" and e["origin"] != "baseline"}) == 13
    for most in (16 * 2 + 5, 16 * 3, 16 * 11):
        run = tmp_path / f"items {most}"
        budget = {"evaluations": 50, "item_evaluations": most}
        assert cli("search", run_file(f"{most}.yaml", budget=budget), "--out", run).status == 0
        found = json.loads(cli("show", run, "--json").out)["item_evaluations"]
        drawn = [e["draw"] for e in events(run) if e["kind"] == "assigned" and e["draw"]["pool"] == "search"]
        assert found == sum(len(draw["places"]["math_ja"]) if "places" in draw else 16 for draw in drawn)
        assert most - 16 < found <= most
    started = time.monotonic()
    run = tmp_path / "seconds"
    assert cli("search", run_file("s.yaml", budget={"seconds": 2.0}), "--out", run).status == 0
    assert time.monotonic() - started < 30
    asked = [event for event in events(run) if event["kind"] == "asked"]
    assert len(asked) > 6, "more than the parents"


def test_every_rival_is_confirmed_however_small_the_budget(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    assert cli("search", run_file(budget={"evaluations": 1}), "--out", run).status == 0
    found = json.loads(cli("show", run, "--json").out)
    names = [baseline["name"] for baseline in found["baselines"]]
    assert {"base", "maths", "japanese", "uniform average", "ties 0.2"} <= set(names)
    assert all(baseline["confirmed"] for baseline in found["baselines"])
    assert found["evaluations"]["done"] == 1
    assert cli("resume", run, "--budget", "16").status == 0
    found = json.loads(cli("show", run, "--json").out)
    assert found["evaluations"]["done"] == 16
    assert sorted(names) == sorted(baseline["name"] for baseline in found["baselines"]), "each is there once"


def test_a_fixed_recipe_gains_nothing_over_itself(finished: dict[str, Path]) -> None:
    results = load(finished["one"])
    champion = max(results.baselines, key=results.scalar)
    assert results.best_fixed(champion) == {"math_ja": (champion.name, (0.0, 0.0))}


def test_confirm_takes_more_finalists(cli: Cli, copy_of_run: Callable[[str], Path]) -> None:
    run = copy_of_run("one")
    before = json.loads(cli("show", run, "--json").out)
    found = cli("confirm", run, "--top", 14)
    assert found.status == 0, found.err
    after = json.loads(cli("show", run, "--json").out)
    assert len(after["front"]) == len(before["front"]) + 6
    assert after["state"] == "finished"
    assert all(entry["confirmed"] for entry in after["front"])


def test_a_search_starts_from_recipes_and_runs(
    cli: Cli, run_file: Write, finished: dict[str, Path], tmp_path: Path
) -> None:
    results = load(finished["one"])
    assert (
        cli("export", finished["one"], "--pick", "number:12", "--format", "recipe", "--out", tmp_path / "R").status == 0
    )
    start = [str(tmp_path / "R/recipe.yaml"), str(finished["one"])]
    path = run_file(space="per-layer", start=start, budget={"evaluations": 30})
    assert cli("search", path, "--out", tmp_path / "RUN").status == 0
    asked = [e["digest"] for e in events(tmp_path / "RUN") if e["kind"] == "asked" and e["origin"] == "prior"]
    assert results.best is not None
    parents = 3  # They come first: every estimate leans on what they answered.
    assert asked[parents : parents + 2] == [results.rows[12].recipe, results.best.recipe]
    narrow = run_file("narrow.yaml", space="model-wide", start=start)
    found = cli("search", narrow, "--out", tmp_path / "NO")
    assert found.status == 2
    assert "is not in the space" in found.err
    assert not (tmp_path / "NO").exists()


def test_a_search_starts_from_a_recipe_that_says_only_where_models_lie(
    cli: Cli, run_file: Write, finished: dict[str, Path], tmp_path: Path
) -> None:
    """As people write them, without digests."""
    out = tmp_path / "R"
    assert cli("export", finished["one"], "--pick", "number:12", "--format", "recipe", "--out", out).status == 0
    plain = yaml.safe_load((out / "recipe.yaml").read_text())
    for parent in plain["parents"].values():
        assert parent.pop("digest")
    (out / "mine.yaml").write_text(yaml.safe_dump(plain))
    path = run_file(space="per-layer", start=[str(out / "mine.yaml")], budget={"evaluations": 6})
    assert cli("search", path, "--out", tmp_path / "RUN").status == 0
    asked = [e["digest"] for e in events(tmp_path / "RUN") if e["kind"] == "asked"]
    assert load(finished["one"]).rows[12].recipe in asked
    plain["parents"]["maths"]["path"] = str(tmp_path)
    (out / "mine.yaml").write_text(yaml.safe_dump(plain))
    found = cli("search", path, "--out", tmp_path / "NO")
    assert found.status == 2
    assert "not among this run's models" in found.err


def test_a_failed_candidate_never_ends_a_run(run_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth candidate gives no finite logits, every seventh dies in the merge."""
    import torch

    from evomerge.assemble import search
    from evomerge.materialize import LiveModel

    plain = LiveModel.load
    calls = {"count": 0}

    def load_badly(self: LiveModel, recipe: Any, coefficients: Any = None) -> int:
        calls["count"] += 1
        if calls["count"] % 7 == 0:
            raise torch.OutOfMemoryError("no room")
        fresh = plain(self, recipe, coefficients)
        if calls["count"] % 5 == 0:
            self._outer["model.norm.weight"].fill_(float("nan"))
            self._loaded.clear()
        return fresh

    run = run_file(space="per-group", budget={"evaluations": 40}, optimizer={"kind": "cma"})
    with monkeypatch.context() as patch:
        patch.setattr("evomerge.evaluate.canary", lambda _: None)
        patch.setattr(LiveModel, "load", load_badly)
        results = search(run, tmp_path / "RUN")
    found = results.to_json()
    assert found["state"] == "finished"
    assert found["evaluations"]["done"] == 40
    assert found["evaluations"]["failed"] >= 8
    assert {failure["stage"] for failure in found["failures"]} == {"merge", "score"}
    assert any("finite" in failure["reason"] for failure in found["failures"])
    assert any("no room" in failure["reason"] for failure in found["failures"])
    assert results.best is not None


def test_init_writes_a_run_file_that_is_understood(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.spec import load_run

    monkeypatch.chdir(tmp_path)
    folders = [DEMO_MODELS / name for name in ("base", "maths", "japanese")]
    found = cli("init", *folders)
    assert found.status == 0
    assert "evomerge plan run.yaml" in found.out
    run = load_run(tmp_path / "run.yaml")
    assert list(run.models.experts) == ["maths", "japanese"]
    assert len(run.fitness.objectives) == 2
    again = cli("init", *folders)
    assert again.status == 2
    assert "run.yaml exists already" in again.err
    plain = yaml.safe_load((tmp_path / "run.yaml").read_text()) | {"fitness": small_fitness()}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(plain))
    assert cli("plan", tmp_path / "mine.yaml").status == 0


def test_a_model_is_scored_without_a_search(cli: Cli, tmp_path: Path, finished: dict[str, Path]) -> None:
    fitness = tmp_path / "f.yaml"
    fitness.write_text(yaml.safe_dump(small_fitness("math_ja", "lists", search=24, confirm=48)))
    found = cli("score", DEMO_MODELS / "lists", "--fitness", fitness, "--json")
    assert found.status == 0, found.err
    scores = json.loads(found.out)
    assert scores["items"] == {"math_ja": 48, "lists": 48}
    row = next(row for row in load(finished["two"]).baselines if row.name == "lists")
    assert row.confirmed is not None
    assert scores["objectives"] == {label: list(pair) for label, pair in row.confirmed.items()}
    everything = json.loads(cli("score", DEMO_MODELS / "lists", "--fitness", fitness, "--items", "all", "--json").out)
    assert everything["items"] == {"math_ja": 72, "lists": 72}
    assert "±" in cli("score", DEMO_MODELS / "lists", "--fitness", fitness).out
