"""The demo, told in short, and the README, done as it says."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import DEMO_MODELS, ROOT, Typed

from evomerge.fitness import Fitness
from evomerge.recipe import Recipe
from evomerge.space import SpaceSpec
from evomerge.spec import Budget, RunSpec, StagedSpec, load_fitness, load_run, load_spec, parse

Cli = Callable[..., Typed]


def test_the_demo_tells_its_story(cli: Cli, tmp_path: Path) -> None:
    """With a tenth of its candidates; `docs/log.md` has the numbers of the whole."""
    out = tmp_path / "demo"
    found = cli("demo", "--out", out, "--evaluations", 34)
    assert found.status == 0, found.err
    for name in ("skill", "front", "learned"):
        state = json.loads(cli("show", out / name, "--json").out)
        assert state["state"] == "finished"
        assert name == "learned" or state["evaluations"]["done"] == 34
        assert (out / f"{name}.html").stat().st_size > 1_000_000
        assert load_run(out / f"{name}.yaml").seed == 7
    assert (out / "model/model.safetensors").exists()
    for words in (
        "Held-out accuracy, 960 items",
        "Pareto front",
        "Hypervolume on held-out items: learned",
        "merged",
        "Solve:",
    ):
        assert words in found.out
    assert "evomerge search run.yaml --out RUN" in found.out
    again = cli("demo", "--out", out)
    assert again.status == 2
    assert "exists already" in again.err


def blocks(language: str, file: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / file).read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models and tasks where the documents say they lie."""
    (tmp_path / "models").symlink_to(DEMO_MODELS)
    (tmp_path / "tasks").symlink_to(ROOT / "fitness/demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_true(workplace: Path, cli: Cli) -> None:
    """Its run file, its fitness, its commands and its Python, one after another, with fewer candidates."""
    run, fitness = blocks("yaml", "README.md")
    assert len([line for line in run.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    Path("fitness.yaml").write_text(fitness)
    assert set(load_fitness("fitness.yaml", workplace).objectives) == {"japanese maths", "lists"}
    plain = yaml.safe_load(run)
    assert load_run_text(run).budget.evaluations == 200
    plain["budget"] = {"evaluations": 22}
    plain["fitness"] = yaml.safe_load(fitness) | {"items": {"search": 12, "confirm": 20, "group": "group"}}
    Path("run.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    commands = [line.split("#")[0].split() for block in blocks("sh", "README.md") for line in block.splitlines()]
    typed = [words[1:] for words in commands if words and words[0] == "evomerge"]
    assert [words[0] for words in typed] == ["plan", "search", "resume", "show", "export", "report"]
    for words in typed:
        found = cli(*words)
        assert found.status == 0, (words, found.err)
    assert Path("MODEL/model.safetensors").exists()
    (python,) = blocks("python", "README.md")
    script = python.replace('"RUN"', '"RUN2"').replace('"MODEL"', '"MODEL2"')
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert Path("MODEL2/model.safetensors").exists()


def load_run_text(text: str) -> RunSpec | StagedSpec:
    Path("whole.yaml").write_text(text)
    return load_spec(Path("whole.yaml"))


def test_run_files_spaces_and_fitnesses_of_the_documents_are_understood(workplace: Path) -> None:
    kinds = {"# run.yaml": RunSpec, "# run.yaml, in stages": StagedSpec}
    kinds |= {"# a budget": Budget, "# a space": SpaceSpec, "# a fitness": Fitness}
    found = blocks("yaml", "docs/run-file.md")
    assert len(found) >= 10
    for text in found:
        head = text.splitlines()[0]
        if kinds[head] in (RunSpec, StagedSpec):
            assert type(load_run_text(text)) is kinds[head]
        else:
            parse(kinds[head], yaml.safe_load(text), head)


def test_the_recipe_of_the_documents_is_merged(workplace: Path, cli: Cli) -> None:
    text, fragment = blocks("yaml", "docs/recipe.md")
    assert set(yaml.safe_load(fragment)) < set(Recipe.model_fields)
    Path("recipe.yaml").write_text(text.replace("path: models/", f"path: {DEMO_MODELS}/"))
    found = cli("merge", "recipe.yaml", "--out", "OF-RECIPE")
    assert found.status == 0, found.err
    assert "scales are folded into float16 weights: logits differ from the searched model's by at most" in found.err
    assert json.loads(Path("OF-RECIPE/config.json").read_text())["num_hidden_layers"] == 4


def test_the_python_of_the_documents_runs(workplace: Path, run_file: Callable[..., Path]) -> None:
    """All blocks of the page, one after another, as one module."""
    run_file("run.yaml", budget={"evaluations": 14})
    Path("page.py").write_text("\n".join(blocks("python", "docs/python.md")))
    done = subprocess.run([sys.executable, "page.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path("MODEL/model.safetensors").exists()


def test_the_command_page_lists_every_command(cli: Cli) -> None:
    page = (ROOT / "docs/cli.md").read_text()
    commands = re.findall(r"^  (\w+) ", cli("--help").out.partition("Commands:")[2], flags=re.MULTILINE)
    assert len(commands) == 12
    for command in commands:
        assert f"`evomerge {command}" in page


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} points at {target}"
