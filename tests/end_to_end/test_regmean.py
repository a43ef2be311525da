"""Searches from RegMean: experts rewritten once, searched over or merely compared with, exported like any others."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DEMO_MODELS, Typed, refused, small_fitness

from evomerge.assemble import export, load, resume, search
from evomerge.assemble.means import Listener
from evomerge.assemble.rewrite import with_rewritten
from evomerge.errors import SpecError
from evomerge.files import turn
from evomerge.results import Results, Row
from evomerge.spec import Budget, RunSpec, load_run

OWNED = {"japanese": "math_ja", "lists": "lists"}


def run_of(folder: Path, **changes: Any) -> RunSpec:
    experts = {n: {"path": str(DEMO_MODELS / n), "objective": label} for n, label in OWNED.items()}
    plain = {
        "models": {"base": str(DEMO_MODELS / "base"), "experts": experts},
        "space": {"groups": "model", "outer": "join"},
        "fitness": small_fitness("math_ja", "lists", search=12, confirm=12),
        "budget": {"evaluations": 4},
        "start": ["regmean"],
        **changes,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return load_run(path)


def test_regmean_is_compared_with_or_begun_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    listener = Listener(say=said.append)
    first = search(run_of(tmp_path, start=[]), tmp_path / "one", listener=listener)
    assert any("reading 24 search items, without their answers" in line for line in said)
    assert any("experts are rewritten with 0." in line for line in said)
    assert counted(first) == 24 + 2 * 24  # What experts read, and what both strengths are judged by.
    outside = regmean_of(first)
    assert first.state.candidates[outside.number].genome is None
    assert not any("regmean" in gene for gene in genes(first))

    said.clear()
    second = search(run_of(tmp_path), tmp_path / "two", listener=listener)
    assert not any("without their answers" in line for line in said)  # They were kept.
    assert all("regmean" in gene for gene in genes(second))
    inside = regmean_of(second)
    assert second.state.candidates[inside.number].genome is not None
    assert inside.search == outside.search
    assert {"base", "japanese", "lists", "uniform average"} <= {row.name for row in second.rows.values()}
    recipe = second.recipe(inside.number)
    assert recipe.used() == {"base", "japanese regmean", "lists regmean"}
    assert {source.weight for source in recipe.layers[0].blend.sources} == {0.5}

    assert counted(second) == counted(first)  # Though they were kept.
    models = load(tmp_path / "two").file.spec.models
    assert models.owners == OWNED
    assert models.rewritten is not None
    assert models.rewritten.instead
    longer = resume(tmp_path / "two", budget=Budget(evaluations=5), listener=listener)
    assert len(longer.state.finished()) >= 5
    export(longer, f"number:{inside.number}", tmp_path / "out", formats=("model",))
    assert (tmp_path / "out/model.safetensors").is_file()


def test_an_expert_owns_an_objective_or_one_of_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    fitness = small_fitness("math_ja", "lists", search=12, confirm=12)
    apart = with_rewritten(run_of(tmp_path, fitness=fitness), None, Listener(say=lambda _: None))
    fitness["objectives"] = {"both": {"tasks": [each["task"] for each in fitness["objectives"].values()]}}
    together = with_rewritten(run_of(tmp_path, fitness=fitness), None, Listener(say=lambda _: None))
    assert together.models.rewritten is not None
    assert together.models.rewritten == apart.models.rewritten


def test_searches_that_begin_together_rewrite_experts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    run = run_of(tmp_path, fitness=small_fitness("math_ja", "lists", search=12, confirm=12))
    first = with_rewritten(run, None, Listener(say=lambda _: None)).models.rewritten
    assert first is not None
    home, other, said = Path(first.folders["lists"]).parents[1], ExitStack(), []

    def say(line: str) -> None:
        said.append(line)
        if "waiting for it" in line:
            other.close()

    other.enter_context(turn(home, lambda: None))
    assert with_rewritten(run, None, Listener(say=say)).models.rewritten == first
    assert any("another process rewrites the same experts" in line for line in said)
    assert not any("without their answers" in line for line in said)


def counted(results: Results) -> int:
    """Item evaluations of a run beside those of its works."""
    draws = [work.draw for work in results.state.works.values() if work.draw.pool == "search"]
    of_works = sum(results.store.table.count("search", draw.places) for draw in draws)
    return int(results.to_json()["item_evaluations"]) - of_works


def regmean_of(results: Results) -> Row:
    (found,) = (row for row in results.rows.values() if row.name == "regmean")
    return found


def genes(results: Results) -> list[str]:
    from evomerge.space import bind

    return [gene.name for gene in bind(results.file.spec.space, results.file.parents).genes]


def test_what_regmean_cannot_be_asked_of_is_refused(tmp_path: Path, cli: Callable[..., Typed]) -> None:
    run_of(tmp_path)
    plain = yaml.safe_load((tmp_path / "run.yaml").read_text())
    plain["models"]["experts"]["lists"] = str(DEMO_MODELS / "lists")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    refused(cli("plan", str(tmp_path / "run.yaml")), "start: regmean asks for an objective of its own", "path: ...")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**plain, "start": []}))
    planned = cli("plan", str(tmp_path / "run.yaml"))
    assert planned.status == 0
    assert "RegMean is left out: lists has no objective of its own" in " ".join(planned.out.split())
    plain["models"]["experts"]["lists"] = {"path": str(DEMO_MODELS / "lists"), "objective": "list"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    refused(cli("plan", str(tmp_path / "run.yaml")), "'list' is no objective with items", "lists or math_ja")
    plain["models"]["experts"]["lists"] = {"path": str(DEMO_MODELS / "lists"), "objective": "lists", "weight": 1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    refused(cli("plan", str(tmp_path / "run.yaml")), "models.experts.lists has objective, path, weight")
    with pytest.raises(SpecError, match="owners: 'other' is none of the experts"):
        run_of(tmp_path, models={"experts": {"one": "a", "two": "b"}, "owners": {"other": "lists"}})
