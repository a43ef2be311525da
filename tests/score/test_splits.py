"""Which documents are scored: the split that is asked for, and never a document that is its own example."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lm_tasks import TASKS, write_tasks

from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.presets import find_preset, preset_names
from evomerge.score import open_banks
from evomerge.score.bank import build_requests
from evomerge.score.tasks import TaskCatalogue
from evomerge.spec import load_fitness

NO_MODEL: Any = SimpleNamespace()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def fitness(tasks: Path, *, search: int = 6, confirm: int = 6, **objective: Any) -> Fitness:
    items = Items(search=search, confirm=confirm)
    return Fitness(include=(str(tasks),), objectives={"it": Objective(**objective)}, items=items)


def test_the_split_that_is_asked_for_is_scored(tasks: Path) -> None:
    rows = {name: (tasks / f"{name}.jsonl").read_text().splitlines() for name in ("train", "test")}
    for split, name in (("train", "train"), ("test", "test"), (None, "test")):
        bank = open_banks(fitness(tasks, task="exact", split=split))["exact"]
        known = [json.loads(row)["prompt"] for row in rows[name]]
        assert all(item.doc["prompt"] in known for item in bank.items.values())
        assert (bank.table.split, bank.table.stock) == (name, False)
        assert bank.table.benchmark == (name == "test")


def test_objectives_on_two_splits_of_a_task_do_not_share_their_marks(tasks: Path) -> None:
    both = {split: Objective(task="exact", split=split) for split in ("train", "test")}
    banks = open_banks(Fitness(include=(str(tasks),), objectives=both, items=Items(search=4, confirm=4)))
    assert {name: bank.table.split for name, bank in banks.items()} == {"exact": "train", "exact #2": "test"}


def test_a_split_that_a_task_has_not(tasks: Path) -> None:
    with pytest.raises(SpecError) as caught:
        open_banks(fitness(tasks, task="exact", split="validation"))
    assert str(caught.value) == (
        "fitness: task 'exact' has no validation split; it has train and test; choose one of them, or leave split out"
        " for test"
    )


def test_a_split_that_only_the_task_file_has(tasks: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    plain = yaml.safe_load((tmp_path / "exact.yaml").read_text())
    (tmp_path / "exact.yaml").write_text(yaml.safe_dump({**plain, "validation_split": "dev", "fewshot_split": "train"}))
    with pytest.raises(SpecError, match="the data of task 'exact' have no validation split"):
        open_banks(fitness(tmp_path, task="exact", split="validation"))


@pytest.mark.parametrize("sampler", ["default", "first_n"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_document_is_its_own_example(split: str, declared: bool, sampler: str, tmp_path: Path) -> None:
    """Whether the task file says where examples come from, or leaves it to lm-eval's rule."""
    write_tasks(tmp_path, count=12)
    head = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: "train.jsonl"}},
        {"train": "training_split", "validation": "validation_split", "test": "test_split"}[split]: split,
        "fewshot_config": {"sampler": sampler},
        **({"fewshot_split": split} if declared else {}),
        **({"validation_split": "train"} if split == "train" else {}),  # lm-eval wants one of the others.
    }
    body = yaml.safe_load(TASKS["exact"])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**head, **body}))
    banks = open_banks(fitness(tmp_path, task="own", split=split, fewshot=4))
    requests = build_requests(banks["own"], NO_MODEL)
    assert len(requests) == 12
    for key, instances in requests.items():
        prompt = banks["own"].items[key].doc["prompt"]
        context = instances[0].args[0]
        assert context.count("Solve:") == 5
        assert context.count(prompt) == 1


def test_a_stock_task_on_its_own_split_is_warned_of(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fitness(tasks, task="exact")
    assert not TaskCatalogue(own).load(own.uses()["exact"]).stock
    catalogue = TaskCatalogue(own)
    catalogue._include = []  # As if the folder were lm-eval's.
    monkeypatch.chdir(tasks)
    assert catalogue.load(own.uses()["exact"]).stock


def test_what_is_said_of_a_stock_test_split() -> None:
    pool = Pool(ids=("a",), clusters=("a",))
    items = TaskItems(search=pool, confirm=pool, metrics={}, split="test", stock=True, benchmark=True)
    changes: dict[str, dict[str, Any]] = {
        "arc_easy": {},
        "other": {"split": "train", "benchmark": False},
        "own": {"stock": False},
    }
    table = ItemTable(tasks={name: items.model_copy(update=change) for name, change in changes.items()})
    assert table.caveats() == [
        "arc_easy: the search uses its test split, on which this benchmark is reported; the numbers of this run must"
        " not be reported as results on it"
    ]


@pytest.mark.parametrize("name", preset_names("fitness"))
def test_no_preset_searches_on_what_benchmarks_are_reported_on(name: str, tmp_path: Path) -> None:
    banks = open_banks(load_fitness(str(find_preset("fitness", name, tmp_path)), tmp_path))
    assert not ItemTable(tasks={key: bank.table for key, bank in banks.items()}).caveats()
