"""What an item's scores are log-likelihoods of: all its options, some of which are right, or a reference answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task

from evomerge.errors import SpecError
from evomerge.items import POOLS, Pool, TaskItems
from evomerge.score.bank import Item, TaskBank
from evomerge.score.encoding import Encoder
from evomerge.score.rows import Request
from evomerge.score.tasks import MADE_UP, graded

TRIED = 32
"""Items at most whose reference answers are graded, to see whether the task takes them for right."""
MOST = 0.5
"""Share of these that must be: a task that looks for an answer in a text takes nearly none, others nearly all."""
RIGHT = ("exact_match", "acc")
"""Metrics that say of an answer whether it is right."""

Requests = Mapping[str, Sequence[Instance]]
Written = Callable[[Task, Mapping[str, Any], bool], str]


@dataclass(frozen=True)
class Gold:
    """Of an item that gives scores: how many of its requests are options, and which are right.

    Without options the scores are those of a reference answer, which `reference` holds where none is asked about.
    """

    options: int = 0
    right: tuple[int, ...] = ()
    reference: Request | None = None


def golds_of(bank: TaskBank, requests: Requests, encoder: Encoder) -> dict[str, Gold]:
    """What the scores of each item are about; nothing where the task gives none.

    It gives none if one of its leaves asks for whole texts (rolling), grades by code of its own, or names no answer
    that it takes for right itself.
    """
    found: dict[str, Gold] = {}
    for leaf, task in bank.leaves.items():
        items = [item for item in bank.items.values() if item.leaf == leaf]
        try:
            found |= _of_leaf(task, items, bank, requests, encoder)
        except Exception:  # noqa: BLE001  A task that grades by code of its own may have no such thing for a document.
            return {}
    return found if len(found) == len(bank.items) else {}


def with_golds(table: TaskItems, golds: Mapping[str, Gold]) -> TaskItems:
    """The table with the right options of every item, if its task gives scores."""
    if not golds:
        return table
    pools: dict[str, Pool] = {
        name: table.pool(name).model_copy(update={"golds": tuple(golds[key].right for key in table.pool(name).ids)})
        for name in POOLS
    }
    return table.model_copy(update=pools)


def _of_leaf(
    task: Task, items: Sequence[Item], bank: TaskBank, requests: Requests, encoder: Encoder
) -> dict[str, Gold]:
    if not isinstance(task, ConfigurableTask) or task.config.process_results is not None:
        return {}
    if task.OUTPUT_TYPE == "multiple_choice":
        return {item.id: gold for item in items if (gold := _choice(task, item.doc)) is not None}
    if task.OUTPUT_TYPE == "generate_until":
        written = _written(task, items, bank)
        return {item.id: _reference(requests[item.id][0], written(item.doc), encoder) for item in items}
    return {item.id: Gold() for item in items} if task.OUTPUT_TYPE == "loglikelihood" else {}


def _choice(task: ConfigurableTask, doc: Mapping[str, Any]) -> Gold | None:
    """A multiple choice, as lm-eval's `process_results` reads it; None without a right option."""
    options = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = options.index(gold) if gold in options else -1
    right = tuple(gold) if isinstance(gold, list) else (gold,)
    fit = right and all(isinstance(place, int) and 0 <= place < len(options) for place in right)
    return Gold(len(options), tuple(sorted(set(right)))) if fit else None


def _reference(instance: Instance, answer: str, encoder: Encoder) -> Gold:
    return Gold(reference=encoder.reference(instance, answer))


def _written(task: ConfigurableTask, items: Sequence[Item], bank: TaskBank) -> Callable[[Mapping[str, Any]], str]:
    """How the task's answers are written so that it takes them for right: behind its delimiter, or as they are.

    Raises:
        SpecError: in neither way.
    """
    for delimiter in dict.fromkeys((_delimiter(task, chat=bank.use.chat_template), "")):

        def written(doc: Mapping[str, Any], before: str = delimiter) -> str:
            return before + _answer(task, doc)

        tried = [_is_right(task, item.doc, written(item.doc)) for item in items[:TRIED]]
        if sum(tried) > MOST * len(tried):
            return written
    raise SpecError(f"task {bank.name!r} takes its own answers for wrong")


def _delimiter(task: ConfigurableTask, *, chat: bool) -> str:
    """What stands between prompt and answer, by lm-eval's rule for options."""
    prefix = task.config.gen_prefix
    behind_prefix = bool(prefix) and not prefix[-1].isspace()
    return str(task.config.target_delimiter) if behind_prefix or not chat else ""


def _answer(task: ConfigurableTask, doc: Mapping[str, Any]) -> str:
    target = task.doc_to_target(doc)
    if task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    found = target[0] if isinstance(target, list) else target
    if found is None or not str(found):
        raise SpecError("a document has no answer")
    return str(found)


def _is_right(task: Task, doc: Mapping[str, Any], answer: str) -> bool:
    """Whether the task's metrics take an answer for right; where none of them says so of answers, any is."""
    values = [
        value
        for row in graded(task, doc, {**MADE_UP, "generate_until": answer}).values()
        for metric, value in row.items()
        if metric in RIGHT
    ]
    return not values or any(float(value) > 0 for value in values)
