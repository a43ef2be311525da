"""What is damaged, what is run then, and when a result is wrong without a word."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from child import OUT, run

ROOT = Path(__file__).resolve().parent.parent.parent
EVALUATIONS = 24
"""Candidates of the finished run; the stopped one has half."""
PASSING = ("seconds", "accelerator_hours", "workers", "incidents")
"""What `show --json` prints that no two searches have alike."""
MERGEKIT = {
    "merge_method": "ties",
    "base_model": "models/base",
    "models": [
        {"model": "models/maths", "parameters": {"weight": 0.7, "density": 0.5}},
        {"model": "models/japanese", "parameters": {"weight": [0.2, {"filter": "mlp", "value": 0.5}][:1]}},
    ],
    "parameters": {"normalize": True, "lambda": 1.0},
    "dtype": "float16",
}


@dataclass(frozen=True)
class Scene:
    """A kind of trial: files to damage, a command, and what a whole tree gives, if that must not change."""

    name: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    result: Callable[[Path], Any] | None = None
    share: int = 1


def shown(folder: Path) -> Any:
    """The numbers that `show --json` prints."""
    return _numbers(json.loads((folder / OUT).read_text()))


def gone_on(folder: Path) -> Any:
    """The numbers of the run that was stopped."""
    return _numbers(json.loads(run(("show", "STOPPED", "--json"), folder).out))


def merged(folder: Path) -> Any:
    """The bytes of the weights that were written."""
    return (folder / "OUT/model.safetensors").read_bytes()


def recipe(folder: Path) -> Any:
    """The recipe that was exported, but for where its models lie."""
    plain = yaml.safe_load((folder / "OUT/recipe.yaml").read_text())
    return {key: value for key, value in plain.items() if key != "parents"}


def _numbers(plain: Any) -> Any:
    """Everything but times, and who worked when."""
    return {key: value for key, value in plain.items() if key not in PASSING}


def _run(name: str) -> tuple[str, ...]:
    return tuple(
        f"{name}/{file}" for file in ("journal.jsonl", "spec.yaml", "responses/items.json", "responses/marks.f64")
    )


MODEL = tuple(
    f"models/maths/{name}"
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    )
)
TASKS = ("tasks/math_ja.yaml", "tasks/lists.yaml", "tasks/math_ja.jsonl", "tasks/lists.jsonl")
SCENES = (
    Scene("show", _run("RUN"), ("show", "RUN", "--json"), shown, 30),
    Scene("export", _run("RUN"), ("export", "RUN", "--out", "OUT", "--format", "recipe"), recipe, 6),
    Scene("resume", _run("STOPPED"), ("resume", "STOPPED", "--budget", str(EVALUATIONS)), gone_on, 6),
    Scene("changed models", MODEL, ("resume", "STOPPED", "--budget", str(EVALUATIONS)), gone_on, 4),
    Scene("changed tasks", TASKS, ("resume", "STOPPED", "--budget", str(EVALUATIONS)), gone_on, 6),
    Scene("run file", ("run.yaml", "fitness.yaml", "space.yaml"), ("plan", "run.yaml"), None, 20),
    Scene("models", MODEL, ("plan", "run.yaml"), None, 8),
    Scene("tasks", TASKS, ("plan", "run.yaml"), None, 8),
    Scene("recipe", ("recipe.yaml",), ("merge", "recipe.yaml", "--out", "OUT"), None, 12),
    Scene("changed parent", MODEL, ("merge", "recipe.yaml", "--out", "OUT"), merged, 4),
    Scene("mergekit", ("mergekit.yml",), ("merge", "mergekit.yml", "--out", "OUT"), None, 10),
)


def prepare(folder: Path) -> None:
    """A tree with everything that the scenes damage.

    Raises:
        AssertionError: a command fails on what is whole.
    """
    shutil.copytree(ROOT / "evomerge/demo/models", folder / "models")
    shutil.copytree(ROOT / "fitness/demo", folder / "tasks")
    objectives = {task: {"task": task, "metric": "acc"} for task in ("math_ja", "lists")}
    items = {"search": 24, "confirm": 24, "group": "group"}
    fitness = {"include": ["tasks"], "objectives": objectives, "items": items, "estimator": {"items": 12}}
    experts = {name: f"models/{name}" for name in ("maths", "japanese")}
    search = {
        "models": {"base": "models/base", "experts": experts},
        "space": "space.yaml",
        "fitness": "fitness.yaml",
        "budget": {"evaluations": EVALUATIONS},
        "seed": 7,
    }
    space = {"kind": "blend", "operator": "ties", "groups": 2, "weight": [0.0, 1.5], "density": [0.2, 1.0]}
    written = {"run.yaml": search, "fitness.yaml": fitness, "space.yaml": space, "mergekit.yml": MERGEKIT}
    for name, plain in written.items():
        (folder / name).write_text(yaml.safe_dump(plain, sort_keys=False))
    _must("search", "run.yaml", "--out", "RUN", folder=folder)
    _must("export", "RUN", "--out", "BEST", "--format", "recipe", folder=folder)
    shutil.copyfile(folder / "BEST/recipe.yaml", folder / "recipe.yaml")
    shutil.rmtree(folder / "BEST")
    _must("search", "run.yaml", "--out", "STOPPED", "--budget", str(EVALUATIONS // 2), folder=folder)


def _must(*arguments: str, folder: Path) -> None:
    outcome = run(arguments, folder)
    assert outcome.status == 0 and not outcome.fault, f"{arguments}: {outcome}"


def copied(tree: Path, to: Path) -> Path:
    """A tree to be damaged: models and tasks are links, what commands write to is not."""
    shutil.copytree(tree, to, ignore=shutil.ignore_patterns("models", "tasks", "RUN", "STOPPED", ".*"))
    for name in ("models", "tasks"):
        shutil.copytree(tree / name, to / name, copy_function=os.link)
    for name in ("RUN", "STOPPED"):
        shutil.copytree(tree / name, to / name)
    return to


def expected(tree: Path, place: Path) -> dict[str, Any]:
    """The results of the scenes on a whole tree, put in a place, by name.

    Raises:
        AssertionError: a scene fails on it.
    """
    found = {}
    for scene in SCENES:
        folder = copied(tree, place)
        outcome = run(scene.command, folder)
        assert outcome.status == 0 and not outcome.fault, f"{scene.name}, whole: {outcome}"
        found[scene.name] = scene.result(folder) if scene.result else None
        shutil.rmtree(folder)
    return found
