"""The items of a task: identified by content, split by hash, with their requests built once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM

from evomerge.errors import SpecError
from evomerge.fitness import Items, Pool, TaskItems, TaskUse
from evomerge.score.tasks import metrics_of

DEFAULT_SEARCH = 128
DEFAULT_CONFIRM = 512


@dataclass(frozen=True)
class Item:
    """One document of a task, addressed by what is in it."""

    id: str
    cluster: str
    leaf: str
    index: int
    doc: Mapping[str, Any]


@dataclass(frozen=True)
class TaskBank:
    """A task as a fitness uses it: its leaves, the items of its pools, and what the driver needs to know."""

    name: str
    use: TaskUse
    leaves: dict[str, Task]
    items: dict[str, Item]
    table: TaskItems


def open_bank(name: str, use: TaskUse, leaves: dict[str, Task], items: Items) -> TaskBank:
    """Identify every document and split them.

    Raises:
        SpecError: there are too few documents, `items.group` names no field of theirs, or none has a metric of its own.
    """
    every = _identified(name, leaves, items.group)
    search, confirm = split_items(name, every, items)
    each = [metrics_of(leaf) for leaf in leaves.values()]
    metrics = {metric: better for metric, better in each[0].items() if all(metric in other for other in each)}
    table = TaskItems(search=pool_of(search), confirm=pool_of(confirm), metrics=metrics)
    return TaskBank(name, use, leaves, {item.id: item for item in (*search, *confirm)}, table)


def pool_of(items: Sequence[Item]) -> Pool:
    """What the driver needs to know of items."""
    return Pool(ids=tuple(item.id for item in items), clusters=tuple(item.cluster for item in items))


def _identified(name: str, leaves: Mapping[str, Task], group: str | None) -> list[Item]:
    items: dict[str, Item] = {}
    for leaf, task in leaves.items():
        for index, doc in enumerate(task.eval_docs):
            if group is not None and group not in doc:
                known = ", ".join(sorted(doc))
                raise SpecError(
                    f"fitness.items.group: documents of {name!r} have no field {group!r}; they have {known}"
                )
            text = json.dumps([leaf, doc], sort_keys=True, default=str, ensure_ascii=False)
            stem = key = _hash(text)[:16]
            copies = 1
            while key in items:  # The same document again: told apart by how many came before.
                copies += 1
                key = f"{stem}-{copies}"
            cluster = stem if group is None else _hash(json.dumps(doc[group], default=str))[:16]
            items[key] = Item(key, cluster, leaf, index, doc)
    return list(items.values())


def split_items(name: str, every: Sequence[Item], items: Items) -> tuple[list[Item], list[Item]]:
    """Search items from one end of the order of hashes, confirm items from the other; a cluster stays on its side.

    So the confirm items do not depend on how many are searched on, nor on the order of the documents.

    Raises:
        SpecError: there are too few.
    """
    search_size, confirm_size = _sizes(name, len(every), items)
    clusters: dict[str, list[Item]] = {}
    for item in every:
        clusters.setdefault(item.cluster, []).append(item)
    order = sorted(clusters, key=lambda cluster: _hash(f"split/{cluster}"))
    search, taken = _take(clusters, order, search_size)
    confirm, _ = _take(clusters, order[: taken - 1 : -1] if taken else order[::-1], confirm_size)
    if len(search) < search_size or len(confirm) < confirm_size:
        raise SpecError(
            f"fitness.items: the {len(every)} documents of {name!r} lie in {len(clusters)} groups, of which"
            f" {search_size} search and {confirm_size} confirm items would share some; lower one of them"
        )
    return search, confirm


def _sizes(name: str, available: int, items: Items) -> tuple[int, int]:
    search = items.search if items.search is not None else min(DEFAULT_SEARCH, max(1, available // 2))
    confirm = items.confirm if items.confirm is not None else min(DEFAULT_CONFIRM, max(1, available - search))
    if search + confirm > available:
        raise SpecError(
            f"fitness.items: task {name!r} has {available} documents, {search} to search on and {confirm} to confirm on"
            f" are {search + confirm}; lower one of them"
        )
    return search, confirm


def _take(clusters: Mapping[str, list[Item]], order: Sequence[str], size: int) -> tuple[list[Item], int]:
    """The first `size` items in this order of clusters, and how many clusters they come from."""
    taken: list[Item] = []
    for count, cluster in enumerate(order, start=1):
        taken += clusters[cluster]
        if len(taken) >= size:
            return taken[:size], count
    return taken, len(order)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build_requests(bank: TaskBank, lm: HFLM) -> dict[str, list[Instance]]:
    """lm-eval's requests for every item of the bank, by item id.

    Few-shot examples are drawn document by document from one stream, so contexts are built for all documents in
    order, as `simple_evaluate` does; an item's prompt does not depend on which other items are used.
    """
    requests: dict[str, list[Instance]] = {}
    for leaf, task in bank.leaves.items():
        wanted = {item.index: item for item in bank.items.values() if item.leaf == leaf}
        shots = task.config.num_fewshot or 0
        for index, doc in enumerate(task.eval_docs) if shots else ((i, wanted[i].doc) for i in sorted(wanted)):
            context = _context(task, doc, shots, bank.use, lm)
            if index in wanted:
                requests[wanted[index].id] = _instances(task, doc, context, index, bank.use, lm)
    return requests


def _context(task: Task, doc: Mapping[str, Any], shots: int, use: TaskUse, lm: HFLM) -> str | list[str]:
    context: str | list[str] = task.fewshot_context(
        doc,
        num_fewshot=shots,
        system_instruction=use.system,
        apply_chat_template=use.chat_template,
        fewshot_as_multiturn=True,
        chat_template=lm.apply_chat_template if use.chat_template else None,
        gen_prefix=task.doc_to_prefix(doc),
    )
    return context


def _instances(
    task: Task, doc: Mapping[str, Any], context: str | list[str], index: int, use: TaskUse, lm: HFLM
) -> list[Instance]:
    made = task.construct_requests(
        doc=doc,
        ctx=context,
        metadata=(task.config.task, index, task.config.repeats),
        apply_chat_template=use.chat_template,
        chat_template=lm.apply_chat_template if use.chat_template else None,
    )
    return made if isinstance(made, list) else [made]
