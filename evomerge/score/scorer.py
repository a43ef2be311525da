"""A live model to raw marks: one number per item and metric, as lm-eval's own metric code gives them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.checkpoint import Checkpoint, read_tokenizer
from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.items import ItemTable
from evomerge.score.bank import TaskBank, build_requests, open_bank
from evomerge.score.cost import with_costs
from evomerge.score.digests import with_digests
from evomerge.score.failure import finite, grading
from evomerge.score.loglikelihood import Forward
from evomerge.score.responses import Prepared, Responder
from evomerge.score.sandbox import sandboxed
from evomerge.score.tasks import TaskCatalogue, code_of_others, mark_of, metric_name
from evomerge.trial import Draw, Marks

DRAWS_KEPT = 8


class Scorer(Protocol):
    """Marks of whatever the live model is at the moment."""

    table: ItemTable

    @property
    def notes(self) -> set[str]:
        """What is scored the slow way, and why."""
        ...

    def marks(self, draw: Draw) -> Marks:
        """Task, then metric, then a mark per drawn item."""
        ...


class TaskScorer:
    """Scores a live model on the lm-eval tasks of a fitness.

    Documents, prompts, tokens and forward-pass plans are made once per draw and reused for every candidate.
    """

    @sandboxed()
    def __init__(
        self,
        fitness: Fitness,
        banks: dict[str, TaskBank],
        model: PreTrainedModel,
        tokenizer: Path | Checkpoint,
        *,
        forward: Forward | None = None,
    ) -> None:
        """`forward` is how log-likelihoods have the model run, if not by a plain call."""
        self._banks = banks
        self.table = ItemTable(tasks={name: bank.table for name, bank in self._banks.items()})
        check_metrics(fitness, self.table)
        words = read_tokenizer(tokenizer)
        _check_template(fitness, words)
        self._responder = Responder(model, words, forward)
        lm = self._responder.lm
        self._requests = {name: build_requests(bank, lm) for name, bank in self._banks.items()}
        tables = {name: with_costs(bank.table, self._requests[name], lm) for name, bank in self._banks.items()}
        digested = {name: with_digests(tables[name], bank, self._requests[name]) for name, bank in self._banks.items()}
        self.table = ItemTable(tasks=digested)
        self._prepared: OrderedDict[str, tuple[Prepared, dict[str, list[str]]]] = OrderedDict()
        self._prepare(Draw(pool="search"))  # Now, so that `notes` are there before a search begins.

    @property
    def notes(self) -> set[str]:
        """What is scored the slow way, and why."""
        return self._responder.notes

    @sandboxed()
    def marks(self, draw: Draw) -> Marks:
        """Marks of the drawn items.

        Raises:
            ScoreFailure: a mark, or what it rests on, is not a finite number.
        """
        prepared, ids = self._prepare(draw)
        prepared.answer()
        return {name: self._graded(self._banks[name], ids[name]) for name in ids}

    def _prepare(self, draw: Draw) -> tuple[Prepared, dict[str, list[str]]]:
        key = draw.model_dump_json(include={"pool", "places"})
        if key not in self._prepared:
            ids = self.table.drawn(draw.pool, draw.places)
            instances = [i for name, wanted in ids.items() for item in wanted for i in self._requests[name][item]]
            self._prepared[key] = (Prepared(self._responder, instances), ids)
            while len(self._prepared) > DRAWS_KEPT:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _graded(self, bank: TaskBank, ids: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """Apply each task's filters and its metric code, document by document."""
        rows: dict[str, dict[str, float]] = {}
        for leaf, task in bank.leaves.items():
            wanted = [item for item in ids if bank.items[item].leaf == leaf]
            if not wanted:
                continue
            filters = [ensemble.name for ensemble in task._filters]
            task._instances = [i for item in wanted for i in self._requests[bank.name][item]]
            with grading(f"answers to task {bank.name!r}"):
                task.apply_filters()
            for item in wanted:
                with grading(f"task {bank.name!r}: the answer to document {bank.items[item].index} of {leaf}"):
                    rows[item] = _item_marks(bank, item, self._requests[bank.name][item], filters)
        shared = set.intersection(*(set(row) for row in rows.values()))
        return {metric: tuple(rows[item][metric] for item in ids) for metric in rows[ids[0]] if metric in shared}


def _item_marks(bank: TaskBank, key: str, instances: Sequence[Instance], filters: Sequence[str]) -> dict[str, float]:
    item = bank.items[key]
    task = bank.leaves[item.leaf]
    ordered = sorted(instances, key=lambda instance: instance.idx)
    row = {}
    for name in filters:
        for metric, value in task.process_results(item.doc, [i.filtered_resps[name] for i in ordered]).items():
            mark = mark_of(metric, value)
            if mark is None:
                continue
            row[metric_name(metric, name, filters)] = finite(mark, metric, key, bank.name)
    return row


def code_remark(fitness: Fitness) -> str | None:
    """What code the tasks of a fitness will run elsewhere, in a sentence; None if none does.

    Raises:
        SpecError: a task is unknown, or its file cannot be read.
    """
    return TaskCatalogue(fitness).remark(stock=False)


@sandboxed()
def open_banks(fitness: Fitness, say: Callable[[str], None] = lambda _: None) -> dict[str, TaskBank]:
    """Load every task of a fitness and split its items; needs no model. What code will run is said before it does.

    Raises:
        SpecError: a task is unknown, cannot be loaded, lacks a split, or has too few documents.
    """
    catalogue = TaskCatalogue(fitness)
    if (remark := catalogue.remark()) is not None:
        say(remark)
    banks = {}
    for name, use in fitness.uses().items():
        loaded = catalogue.load(use)
        with code_of_others(f"fitness: task {name!r}", "used"):
            banks[name] = open_bank(name, use, loaded, fitness.items, _deciding(fitness, name))
    return banks


def _deciding(fitness: Fitness, task: str) -> str | None:
    """The metric whose aggregation weighs a group's items: that of the first objective that uses the group."""
    return next(o.metric for label, o in fitness.objectives.items() if task in fitness.keys(label))


def check_metrics(fitness: Fitness, table: ItemTable) -> None:
    """Refuse a metric that a task does not give.

    Raises:
        SpecError: with the metrics it does give.
    """
    for label, objective in fitness.objectives.items():
        for key in fitness.keys(label):
            items = table.tasks[key]
            wanted = {"metric": objective.metric}
            wanted |= {"tie_break.metric": objective.tie_break.metric} if objective.tie_break else {}
            for field, metric in wanted.items():
                if items.metric(metric) is None:
                    raise SpecError(
                        f"fitness.objectives.{label}.{field}: {key!r} gives no {metric!r} per document;"
                        f" it gives {', '.join(items.metrics)}"
                    )


def _check_template(fitness: Fitness, tokenizer: PreTrainedTokenizerBase) -> None:
    for label, objective in fitness.objectives.items():
        if objective.chat_template and tokenizer.chat_template is None:
            raise SpecError(
                f"fitness.objectives.{label}.chat_template: the tokenizer used has no chat template; let"
                " models.template name an expert that has one"
            )
