"""Recipes and runs among the experts of a run file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DEMO_MODELS, Typed, story

from evomerge.assemble import load, search
from evomerge.spec import load_run

Cli = Callable[..., Typed]
Write = Callable[..., Path]


def experts(**named: object) -> dict[str, object]:
    plain = {"maths": str(DEMO_MODELS / "maths"), **{name: str(source) for name, source in named.items()}}
    return {"base": str(DEMO_MODELS / "base"), "experts": plain}


def told(run: Path) -> list[Any]:
    """Genomes, utilities and marks of a run: all that does not name a model."""
    results = load(run)
    marks = [results.marks(number, pool) for number in results.rows for pool in ("search", "confirm")]
    return [[event for event in story(run) if event["kind"] == "told"], marks]


@pytest.fixture
def exported(finished: dict[str, Path], cli: Cli, tmp_path: Path) -> Path:
    assert cli("export", finished["one"], "--pick", "best", "--out", tmp_path / "M").status == 0
    return tmp_path / "M"


def test_a_run_a_recipe_and_a_folder_are_one_expert(
    finished: dict[str, Path], exported: Path, run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    """The same marks, whichever of them an expert is given as."""
    best = load(finished["one"]).best
    assert best is not None
    sources = {
        "folder": exported,
        "recipe": exported / "recipe.yaml",
        "run": finished["one"],
        "picked": f"{finished['one']}@number:{best.number}",
    }
    for name, source in sources.items():
        path = run_file(f"{name}.yaml", models=experts(mix=source), space="per-group", budget={"evaluations": 16})
        found = cli("search", path, "--out", tmp_path / name)
        assert found.status == 0, found.err
    for name in ("recipe", "run", "picked"):
        assert told(tmp_path / name) == told(tmp_path / "folder")
    assert story(tmp_path / "run") == story(tmp_path / "recipe") == story(tmp_path / "picked")


def test_the_other_run_may_be_deleted(
    copy_of_run: Callable[[str], Path], run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    other = copy_of_run("two")
    path = run_file(models=experts(mix=f"{other}@knee"), budget={"evaluations": 10})
    assert cli("search", path, "--out", tmp_path / "RUN").status == 0
    shutil.rmtree(other)
    found = cli("resume", tmp_path / "RUN", "--budget", 14)
    assert found.status == 0, found.err
    assert cli("export", tmp_path / "RUN", "--out", tmp_path / "M").status == 0
    assert cli("search", tmp_path / "M/run.yaml", "--out", tmp_path / "AGAIN", "--budget", 14).status == 0
    assert told(tmp_path / "AGAIN")[1][:10] == told(tmp_path / "RUN")[1][:10]


def test_an_export_says_everything_down_to_folders(
    finished: dict[str, Path], run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    first = run_file("first.yaml", models=experts(mix=finished["one"]), budget={"evaluations": 10})
    assert cli("search", first, "--out", tmp_path / "FIRST").status == 0
    second = run_file("second.yaml", models=experts(twice=tmp_path / "FIRST"), budget={"evaluations": 10})
    assert cli("search", second, "--out", tmp_path / "SECOND").status == 0
    results = load(tmp_path / "SECOND")
    uniform = next(row for row in results.baselines if row.name == "uniform average")
    assert cli("export", tmp_path / "SECOND", "--pick", uniform.number, "--out", tmp_path / "M").status == 0
    assert cli("merge", tmp_path / "M/recipe.yaml", "--out", tmp_path / "AGAIN").status == 0
    for name in ("model.safetensors", "config.json", "recipe.yaml"):
        assert (tmp_path / "M" / name).read_bytes() == (tmp_path / "AGAIN" / name).read_bytes()
    card = (tmp_path / "M/README.md").read_text()
    assert "| twice | a merge of" in card
    assert "| twice: base | base |" in card
    how = json.loads((tmp_path / "M/reproduce.json").read_text())
    assert how["spec"]["parents"]["models"]["twice"]["parents"]
    found = cli("score", tmp_path / "M/recipe.yaml", "--fitness", fitness_file(first), "--items", "confirm", "--json")
    assert json.loads(found.out)["objectives"]["math_ja"][0] == uniform.confirmed["math_ja"][0]


def fitness_file(run: Path) -> Path:
    path = run.with_name("fitness.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(run.read_text())["fitness"]))
    return path


def test_a_search_begins_with_a_recipe_over_recipes(
    finished: dict[str, Path], run_file: Write, cli: Cli, tmp_path: Path
) -> None:
    models = experts(mix=finished["one"])
    first = run_file("first.yaml", models=models, budget={"evaluations": 20})
    assert cli("search", first, "--out", tmp_path / "FIRST").status == 0
    assert cli("export", tmp_path / "FIRST", "--pick", 19, "--format", "recipe", "--out", tmp_path / "R").status == 0
    start = [str(tmp_path / "R/recipe.yaml")]
    second = run_file("second.yaml", models=models, start=start, space="per-group", budget={"evaluations": 12})
    assert cli("search", second, "--out", tmp_path / "SECOND").status == 0
    digest = load(tmp_path / "FIRST").rows[19].recipe
    assert digest in {row.recipe for row in load(tmp_path / "SECOND").rows.values()}


def test_paths_are_relative_to_the_run_file(
    copy_of_run: Callable[[str], Path], run_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of_run("two")
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs/A")
    monkeypatch.chdir("/")
    for source in ("runs/A@knee", "./runs/A@knee", "runs/A@math_ja", "runs/A"):
        spec = load_run(run_file(models=experts(mix=source)))
        named, _, pick = str(spec.models.experts["mix"]).partition("@")
        assert named == str(tmp_path / "runs/A")
        assert pick == source.partition("@")[2]
    assert load_run(run_file(models=experts(mix="some/model@main"))).models.experts["mix"] == "some/model@main"
    assert load_run(run_file(models=experts(mix="some/recipe.yaml"))).models.experts["mix"].startswith("/")


def test_recipes_as_values(finished: dict[str, Path], run_file: Write, tmp_path: Path) -> None:
    """From Python a recipe is an expert itself."""
    results = load(finished["one"])
    spec = load_run(run_file(models=experts(mix=finished["one"]), budget={"evaluations": 8}))
    best = results.recipe(results.best.number)
    models = spec.models.model_copy(update={"experts": {**spec.models.experts, "mix": best}})
    search(spec, tmp_path / "named")
    search(spec.model_copy(update={"models": models}), tmp_path / "given")
    assert story(tmp_path / "named") == story(tmp_path / "given")
