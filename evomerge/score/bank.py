"""The items of a task: identified by content, split by hash, with their requests built once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM

from evomerge.errors import SpecError
from evomerge.fitness import Items, TaskUse
from evomerge.items import NOTHING, Pool, TaskItems
from evomerge.score.splits import documents, use_split
from evomerge.score.tasks import Loaded, code_of_others, metrics_of
from evomerge.score.undefined import undefined_documents
from evomerge.score.weights import weights_of

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


class Sides(NamedTuple):
    """Disjoint items: to search on, to confirm on, and for a last look."""

    search: list[Item]
    confirm: list[Item]
    report: list[Item]


@dataclass(frozen=True)
class TaskBank:
    """A task as a fitness uses it: leaves, their documents, the items of its pools, what the driver needs to know."""

    name: str
    use: TaskUse
    leaves: dict[str, Task]
    docs: dict[str, Any]
    items: dict[str, Item]
    table: TaskItems


def open_bank(name: str, use: TaskUse, loaded: Loaded, items: Items, asked: Sequence[str | None]) -> TaskBank:
    """Identify every document and split them.

    Of the metrics `asked` for, None being the task's first, the aggregation of the first one weighs the items.
    Documents for which one of them is undefined are left out.

    Raises:
        SpecError: there are too few documents, `items.group` names no field of theirs, or none has a metric of its own;
            or a leaf has no documents of the wanted split, or none for which all metrics asked for are defined.
    """
    leaves = loaded.leaves
    splits = {leaf: use_split(leaf, task, use.split) for leaf, task in leaves.items()}
    docs = {leaf: documents(leaf, task, splits[leaf][0]) for leaf, task in leaves.items()}
    metrics = _shared([metrics_of(task, docs[leaf][0]) for leaf, task in leaves.items()])
    needed = [
        known for known in map(TaskItems(search=NOTHING, confirm=NOTHING, metrics=metrics).metric, asked) if known
    ]
    every = _identified(name, docs, items.group)
    defined = _defined(name, every, leaves, docs, needed)
    sides = split_items(name, defined, items)
    wanted = next(iter(needed), None)
    search, confirm, report, whole = (
        pool_of(side, lambda names: weights_of(names, loaded.group, wanted), several=len(leaves) > 1)
        for side in (*sides, [item for side in sides for item in side])
    )
    # Leaves that differ in what lm-eval evaluates on: those that are the benchmark's are the ones to warn of.
    split, benchmark = max(splits.values(), key=lambda found: (found[1], found[0] == "test"))
    table = TaskItems(
        search=search,
        confirm=confirm,
        report=report,
        metrics=metrics,
        split=split,
        stock=loaded.stock,
        benchmark=benchmark,
        whole_weights=dict(zip(whole.strata, whole.weights, strict=False)),
        code=loaded.code,
        undefined=len(every) - len(defined),
    )
    return TaskBank(name, use, leaves, docs, {item.id: item for side in sides for item in side}, table)


def _shared(each: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """The metrics that all leaves give."""
    return {known: better for known, better in each[0].items() if all(known in other for other in each)}


def _defined(
    name: str, every: Sequence[Item], leaves: Mapping[str, Task], docs: Mapping[str, Any], metrics: Sequence[str]
) -> list[Item]:
    out = {leaf: undefined_documents(task, docs[leaf], metrics) for leaf, task in leaves.items()}
    defined = [item for item in every if item.index not in out[item.leaf]]
    if every and not defined:
        raise SpecError(
            f"fitness: {' and '.join(metrics)} of task {name!r} are defined together for none of its documents; ask for"
            " one of them only"
        )
    return defined


def pool_of(
    items: Sequence[Item],
    weigh: Callable[[Sequence[str]], tuple[float, ...]] = lambda _: (),
    *,
    several: bool = False,
) -> Pool:
    """What the driver needs to know of items; `weigh` gives weights for their leaves, of which there may be several."""
    leaves = tuple(item.leaf for item in items)
    return Pool(
        ids=tuple(item.id for item in items),
        clusters=tuple(item.cluster for item in items),
        weights=weigh(leaves),
        strata=leaves if several else (),
    )


def _identified(name: str, docs: Mapping[str, Any], group: str | None) -> list[Item]:
    items: dict[str, Item] = {}
    for leaf, every in docs.items():
        for index, doc in enumerate(every):
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


def split_items(name: str, every: Sequence[Item], items: Items) -> Sides:
    """Search items from one end of the order of hashes, confirm items from the other; a cluster stays on its side.

    So the confirm items do not depend on how many are searched on, nor on the order of the documents. Report items
    come after them from that end.

    Raises:
        SpecError: there are too few.
    """
    sizes = _sizes(name, len(every), items)
    clusters: dict[str, list[Item]] = {}
    for item in every:
        clusters.setdefault(item.cluster, []).append(item)
    order = sorted(clusters, key=lambda cluster: _hash(f"split/{cluster}"))
    search, taken = _take(clusters, order, sizes["search"])
    rest = order[taken:][::-1]
    confirm, taken = _take(clusters, rest, sizes["confirm"])
    report, _ = _take(clusters, rest[taken:], sizes["report"])
    sides = Sides(search, confirm, report)
    if any(len(side) < sizes[pool] for pool, side in sides._asdict().items()):
        raise SpecError(
            f"fitness.items: the {len(every)} documents of {name!r} lie in {len(clusters)} groups, of which"
            f" {_counted(sizes)} items would share some; lower one of them"
        )
    return sides


def _sizes(name: str, available: int, items: Items) -> dict[str, int]:
    report = items.report or 0
    search = items.search if items.search is not None else min(DEFAULT_SEARCH, max(1, available // 2))
    confirm = items.confirm if items.confirm is not None else min(DEFAULT_CONFIRM, max(1, available - search - report))
    sizes = {"search": search, "confirm": confirm, "report": report}
    if search + confirm + report > available:
        raise SpecError(
            f"fitness.items: task {name!r} has {available} documents, {_counted(sizes)} are"
            f" {search + confirm + report}; lower one of them"
        )
    return sizes


def _counted(sizes: Mapping[str, int]) -> str:
    *most, last = [f"{size} {pool}" for pool, size in sizes.items() if size]
    return f"{', '.join(most)} and {last}"


def _take(clusters: Mapping[str, list[Item]], order: Sequence[str], size: int) -> tuple[list[Item], int]:
    """The first `size` items in this order of clusters, and how many clusters they come from."""
    taken: list[Item] = []
    if not size:
        return taken, 0
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

    Raises:
        SpecError: the task or the chat template fails at a document.
    """
    requests: dict[str, list[Instance]] = {}
    for leaf, task in bank.leaves.items():
        wanted = {item.index: item for item in bank.items.values() if item.leaf == leaf}
        shots = task.config.num_fewshot or 0
        for index, doc in enumerate(bank.docs[leaf]) if shots else ((i, wanted[i].doc) for i in sorted(wanted)):
            called = f"fitness: task {bank.name!r}: document {index} of {leaf}"
            with code_of_others(called, "made a prompt", _way_out(bank.use)):
                context = _context(task, doc, shots, bank.use, lm)
                if index in wanted:
                    requests[wanted[index].id] = _instances(task, doc, context, index, bank.use, lm)
    return requests


def _way_out(use: TaskUse) -> str:
    """What to change where a prompt cannot be made."""
    given = [name for name in ("fewshot", "chat_template", "system") if getattr(use, name)]
    return "; mend the task file" + (f", or give another {' or '.join(given)}, or none" if given else "")


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
