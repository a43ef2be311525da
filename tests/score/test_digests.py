"""Whatever decides a mark beside the model is noticed when it changes, and named; what decides none is not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DEMO_MODELS, ROOT, Typed, refused
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import ItemTable
from evomerge.score import TaskScorer, open_banks
from evomerge.spec import load_run

Cli = Callable[..., Typed]
TASK = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "own.jsonl"},
    "test_split": "train",
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"max_gen_toks": 4, "until": ["\n"], "do_sample": False},
    "filter_list": [{"name": "none", "filter": [{"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
GRADED = "def f(doc, results): return {'exact_match': 1.0}\n"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "base", dtype=torch.float32).eval()


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    shutil.copy(ROOT / "fitness/demo/lists.jsonl", folder / "own.jsonl")
    return folder


def table(tasks: Path, model: PreTrainedModel, objective: dict[str, Any], **keys: object) -> ItemTable:
    graded = "" if "doc_to_choice" in keys else "process_results: !function own.f\n"
    (tasks / "own.yaml").write_text(yaml.safe_dump(TASK | keys) + graded)
    objectives = {"x": Objective(task="own", **objective)}
    fitness = Fitness(include=(str(tasks),), objectives=objectives, items=Items(search=4, confirm=4))
    return TaskScorer(fitness, open_banks(fitness), model, DEMO_MODELS / "base").table


@pytest.mark.parametrize(
    ("objective", "keys", "code", "words"),
    [
        ({}, {}, GRADED, None),
        ({}, {"metadata": {"version": 2}, "task_alias": "mine"}, GRADED, None),
        ({}, {"doc_to_text": "{{prompt}} "}, GRADED, "settings for 8 of 8 items (search item "),
        ({}, {"doc_to_text": "{{prompt}}{% if '7' in answer %}!{% endif %}"}, GRADED, "has other prompts"),
        ({}, {"doc_to_target": "{{answer}}."}, GRADED, "for 8 of 8 items"),
        ({}, {"description": "Sort."}, GRADED, "for 8 of 8 items"),
        ({}, {"gen_prefix": "So:"}, GRADED, "for 8 of 8 items"),
        ({}, {"repeats": 2}, GRADED, "for 8 of 8 items"),
        ({"fewshot": 1}, {}, GRADED, "for 8 of 8 items"),
        ({"system": "You sort."}, {}, GRADED, "for 8 of 8 items"),
        ({"generation": {"max_gen_toks": 5}}, {}, GRADED, "for 8 of 8 items"),
        ({}, {"filter_list": [{"name": "none", "filter": [{"function": "lowercase"}, {"function": "take_first"}]}]},
         GRADED, "is graded otherwise (filter_list)"),
        ({}, {}, GRADED.replace("1.0", "0.5"), "runs other code (TASKS/own.py)"),
        ({}, {"output_type": "multiple_choice", "doc_to_choice": ["1", "2"], "doc_to_target": 0,
              "metric_list": [{"metric": "acc"}]}, GRADED, "has other items or metrics"),
    ],
)  # fmt: skip
def test_what_decides_marks_is_seen_to_change(
    objective: dict[str, Any], keys: dict[str, Any], code: str, words: str | None, tasks: Path, model: PreTrainedModel
) -> None:
    (tasks / "own.py").write_text(GRADED)
    then = table(tasks, model, {})
    (tasks / "own.py").write_text(code)
    change = table(tasks, model, objective, **keys).changes_since(then)
    if words is None:
        assert change is None
    else:
        assert change is not None
        assert words.replace("TASKS", str(tasks)) in change and change.startswith("task 'own' ")


def test_a_run_whose_prompts_were_edited_is_refused_and_one_without_digests_goes_on(
    cli: Cli, run_file: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = Path(shutil.copytree(ROOT / "fitness/demo", tmp_path / "tasks"))
    fitness = {
        "include": [str(tasks)],
        "objectives": {"x": {"task": "lists", "metric": "acc"}},
        "items": {"search": 8, "confirm": 8},
        "estimator": {"items": 4},
    }
    path = run_file(fitness=fitness, budget={"evaluations": 4})
    from evomerge.assemble import search

    search(load_run(path), tmp_path / "R")
    lists = tasks / "lists.yaml"
    honest = lists.read_text()
    lists.write_text(honest.replace('doc_to_text: "{{prompt}}"', 'doc_to_text: "{{prompt}} {{prompt}}"'))
    before = (tmp_path / "R/journal.jsonl").read_bytes()
    for command in (("resume", "--budget", 6), ("confirm", "--top", 9)):
        found = cli(command[0], tmp_path / "R", *command[1:])
        refused(
            found,
            "R: task 'lists' has other prompts, options, targets or settings for 16 of 16 items (search",
            "restore",
            "begin a new search",
        )
    assert (tmp_path / "R/journal.jsonl").read_bytes() == before
    old = ItemTable.model_validate_json((tmp_path / "R/responses/items.json").read_text())
    plain = old.to_plain()
    for task in plain["tasks"].values():
        for pool in ("search", "confirm"):
            del task[pool]["requests"]
        del task["grading"]
    assert old.changes_since(ItemTable.model_validate(plain, strict=False)) is None
