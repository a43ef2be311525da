"""The documents of a task: which split they come from, and that none is its own example."""

from typing import Any

from lm_eval.api.task import Task

from evomerge.errors import SpecError
from evomerge.items import Split

FIELDS: dict[Split, str] = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
"""What lm-eval's task files call them."""


def benchmark_split(task: Task) -> Split:
    """The split that lm-eval evaluates on, whose numbers are the benchmark's."""
    return "test" if task.has_test_docs() else "validation"


def use_split(name: str, task: Task, split: Split | None) -> tuple[Split, bool]:
    """The split that a task is used on, and whether it is the benchmark's; no document is among its own examples.

    To be called once a task: afterwards lm-eval may call another split the test split.

    Raises:
        SpecError: the task has no such split.
    """
    there, usual = _splits(task), benchmark_split(task)
    if split is not None and split not in there:
        way = f"choose one of them, or leave split out for {usual}"
        raise SpecError(f"fitness: task {name!r} has no {split} split; it has {' and '.join(there)}; {way}")
    used = split or usual
    _hide_scored(task, used, there)
    return used, used == usual


def documents(name: str, task: Task, split: Split) -> Any:
    """All documents of a split, in their order.

    Raises:
        SpecError: the task names a split that its data have not.
    """
    given = {"train": task.training_docs, "validation": task.validation_docs, "test": task.test_docs}
    try:
        return given[split]()
    except KeyError as error:
        raise SpecError(f"fitness: the data of task {name!r} have no {split} split (there is no {error})") from None


def _splits(task: Task) -> list[Split]:
    there: dict[Split, bool] = {
        "train": task.has_training_docs(),
        "validation": task.has_validation_docs(),
        "test": task.has_test_docs(),
    }
    return [split for split, has in there.items() if has]


def _hide_scored(task: Task, used: Split, there: list[Split]) -> None:
    """Where examples come from the split that is scored, have lm-eval leave the scored document out of them.

    It does so if the examples' split is called what the test split is called, and only then. Documents and sampler
    were made before, so that these names are looked at for nothing else.
    """
    names = {split: task.get_config(FIELDS[split]) or split for split in there}
    shown = task.fewshot_cfg.split
    if shown is None and task.fewshot_cfg.samples is None:
        shown = names[there[0]]
    if shown == names[used]:
        task.fewshot_cfg.split = shown
        task.set_config("test_split", shown)
