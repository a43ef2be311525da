"""Digests of all that decides an item's mark beside the model, so that a run notices when any of it has changed.

They are of what was built, not of the files that it was built from: two versions of lm-eval that ask the same agree.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task

from evomerge.items import POOLS, Pool, TaskItems
from evomerge.score.bank import TaskBank

LENGTH = 12
"""Hexadecimal digits that tell one item's requests from what they became."""


def with_digests(table: TaskItems, bank: TaskBank, requests: Mapping[str, Sequence[Instance]]) -> TaskItems:
    """The table with a digest of every item's requests, and of what grades the answers."""
    digests = {key: _of_item(bank, key, made) for key, made in requests.items()}
    pools: dict[str, Pool] = {
        name: table.pool(name).model_copy(update={"requests": tuple(digests[key] for key in table.pool(name).ids)})
        for name in POOLS
    }
    rules = {leaf: _rules(task) for leaf, task in bank.leaves.items()}
    named = dict.fromkeys(name for each in rules.values() for name in each)
    grading = {name: _digest({leaf: each.get(name) for leaf, each in rules.items()}) for name in named}
    return table.model_copy(update={**pools, "grading": grading})


def _of_item(bank: TaskBank, key: str, made: Sequence[Instance]) -> str:
    item = bank.items[key]
    asked = [[each.request_type, each.args, each.repeats] for each in made]
    return _digest([asked, *_answers(bank.leaves[item.leaf], item.doc)])


def _answers(task: Task, doc: Mapping[str, Any]) -> list[Any]:
    """What lm-eval's own grading compares answers with."""
    if not isinstance(task, ConfigurableTask):
        return []
    wanted = [task.doc_to_target, task.doc_to_text if task.multiple_input else None]
    wanted += [task.doc_to_choice if task.config.doc_to_choice is not None else None]
    found = []
    for each in wanted:
        try:
            found.append(None if each is None else each(doc))
        except Exception:  # noqa: BLE001  A task that grades by code of its own may have no such thing for a document.
            found.append(None)
    return found


def _rules(task: Task) -> dict[str, Any]:
    """What a task says of grading, by the keys of its file."""
    if not isinstance(task, ConfigurableTask):
        return {"class": type(task)}
    metrics = {name: [function, task._metric_fn_kwargs.get(name)] for name, function in task._metric_fn_list.items()}
    return {
        "output_type": task.OUTPUT_TYPE,
        "metric_list": {name: kwargs for name, (_, kwargs) in metrics.items()},
        "filter_list": task.config.filter_list,
        "process_results": task.config.process_results,
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def _plain(value: Any) -> Any:
    """A function's name, its code being digested by file; the values of sets and arrays."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    named = getattr(value, "__qualname__", None)
    if isinstance(named, str):
        return named
    item = getattr(value, "tolist", None)
    return item() if callable(item) else type(value).__qualname__
