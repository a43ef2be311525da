"""A live model to raw marks: one number per item and metric, as lm-eval's own metric code gives them."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.checkpoint import Checkpoint, read_tokenizer
from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.items import ItemTable, TaskItems
from evomerge.score.bank import TaskBank, build_requests, open_bank
from evomerge.score.chat import unheard
from evomerge.score.cost import cost_of, cut_of, with_costs
from evomerge.score.digests import with_digests
from evomerge.score.encoding import Encoded
from evomerge.score.failure import finite, grading
from evomerge.score.golds import Gold, golds_of, with_golds
from evomerge.score.lessons import Lessons
from evomerge.score.loglikelihood import Forward
from evomerge.score.prepared import Prepared
from evomerge.score.prose import Guarded, Prose, open_prose
from evomerge.score.responses import Responder
from evomerge.score.rows import Request
from evomerge.score.sandbox import sandboxed
from evomerge.score.tasks import TaskCatalogue, code_of_others, mark_of, metric_name
from evomerge.trial import Draw, Marks, Scores

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

    def scored(self, draw: Draw) -> tuple[Marks, Scores]:
        """The same marks, and beside them the scores of tasks that give any."""
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
        seed: int = 0,
    ) -> None:
        """`forward` is how log-likelihoods have the model run, if not by a plain call; `seed` is for what is sampled.

        Raises:
            SpecError: a task does not give a metric that is asked for, or cannot be put to this model.
            ScoreFailure: the model, as it is now, computes no finite numbers.
        """
        self._banks = banks
        self.table = ItemTable(tasks={name: bank.table for name, bank in self._banks.items()})
        check_metrics(fitness, self.table)
        words = read_tokenizer(tokenizer)
        _check_template(fitness, words)
        self._responder = Responder(model, words, forward, seed)
        lm = self._responder.lm
        self._requests = {name: build_requests(bank, lm) for name, bank in self._banks.items()}
        self._responder.notes |= {note for bank in self._banks.values() if (note := unheard(bank, lm)) is not None}
        self._needed = needed_metrics(fitness, self.table)
        self._encoded: dict[tuple[str, str], list[Encoded]] = {}
        counted = {name: self._counted(name) for name in self._banks}
        digested = {name: with_digests(counted[name], bank, self._requests[name]) for name, bank in self._banks.items()}
        self._golds: dict[str, dict[str, Gold]] = {}
        self.table = ItemTable(tasks={name: self._with_golds(name, table) for name, table in digested.items()})
        self._prepared: OrderedDict[str, tuple[Prepared, dict[str, list[str]]]] = OrderedDict()
        self._prepare(Draw(pool="search"))  # Now, so that `notes` are there before a search begins.

    def _counted(self, name: str) -> TaskItems:
        """A task's items with their tokens, all of which are looked at; those of search items are kept."""
        table = self._banks[name].table
        costs, cuts, kept = {}, {}, set(table.search.ids)
        for key, instances in self._requests[name].items():
            encoded = self._encode(name, key)
            asked = list(zip(instances, encoded, strict=True))
            costs[key], cuts[key] = cost_of(asked), cut_of(asked)
            if key in kept:
                self._encoded[name, key] = encoded
        return with_costs(table, costs, cuts)

    def _with_golds(self, name: str, table: TaskItems) -> TaskItems:
        """A task's items with what is right of each; what is known of search items beside it is kept."""
        golds = golds_of(self._banks[name], self._requests[name], self._responder.encoder)
        self._golds[name] = {key: golds[key] for key in table.search.ids} if golds else {}
        return with_golds(table, golds)

    def _encode(self, name: str, key: str) -> list[Encoded]:
        if (name, key) in self._encoded:
            return self._encoded[name, key]
        item = self._banks[name].items[key]
        try:
            return [self._responder.encoder.encode(instance) for instance in self._requests[name][key]]
        except SpecError as error:
            raise SpecError(f"fitness: task {name!r}: document {item.index} of {item.leaf}: {error}") from None

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

    @sandboxed()
    def scored(self, draw: Draw) -> tuple[Marks, Scores]:
        """Marks of drawn search items, and the scores of tasks that give any.

        Raises:
            ScoreFailure: a mark, a score, or what they rest on, is not a finite number.
        """
        prepared, ids = self._prepare(draw)
        tokens = iter(prepared.answer_by_token())
        likely = {
            (name, key): [next(tokens) for _ in self._likelihoods(name, key)] for name in ids for key in ids[name]
        }
        scores: dict[str, tuple[tuple[float, ...], ...]] = {}
        for name in ids:
            if golds := self._golds[name]:
                scores[name] = tuple(
                    next(tokens) if golds[key].reference else self._scores(name, key, likely[name, key][:1])
                    for key in ids[name]
                )
        return {name: self._graded(self._banks[name], ids[name]) for name in ids}, scores

    def _scores(self, name: str, key: str, tokens: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        """What was answered to an item's options, if it has any; else the tokens of its only request."""
        options = self._golds[name][key].options
        return tuple(one.resps[0][0] for one in self._requests[name][key][:options]) if options else tokens[0]

    def requests(self, name: str, key: str) -> tuple[Request, ...]:
        """What the scores of a search item are log-likelihoods of: its options, or the reference answer."""
        gold = self._golds[name][key]
        if gold.reference is not None:
            return (gold.reference,)
        return tuple(self._likelihoods(name, key)[: gold.options or 1])

    @sandboxed()
    def prose(self, guarded: Guarded | None = None) -> Prose | None:
        """Text to foretell: what is guarded, or English prose; None if the tokenizer does not cover that.

        Raises:
            SpecError: what is guarded cannot be used.
        """
        return open_prose(guarded, self._responder)

    def lessons(self, prose: Prose | None = None) -> Lessons:
        """What the search items of tasks that give scores have to teach, and what there is to keep."""
        table = self.table if prose is None else self.table.model_copy(update={"text": prose.items})
        return Lessons(table, self.requests, self._responder, prose)

    def _likelihoods(self, name: str, key: str) -> list[Request]:
        """All that is asked about an item in log-likelihoods."""
        return [request for encoded in self._encode(name, key) for request in encoded.requests]

    def _references(self, ids: Mapping[str, Sequence[str]]) -> list[Request]:
        found = [self._golds[name].get(key) for name, wanted in ids.items() for key in wanted]
        return [gold.reference for gold in found if gold is not None and gold.reference is not None]

    def _prepare(self, draw: Draw) -> tuple[Prepared, dict[str, list[str]]]:
        key = draw.model_dump_json(include={"pool", "places"})
        if key not in self._prepared:
            ids = self.table.drawn(draw.pool, draw.places)
            keys = [(name, item) for name, wanted in ids.items() for item in wanted]
            instances = [instance for name, item in keys for instance in self._requests[name][item]]
            encoded = [one for name, item in keys for one in self._encode(name, item)]
            self._prepared[key] = (Prepared(self._responder, instances, encoded, self._references(ids)), ids)
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
        for item in ids:
            _check_marks(rows[item], self._needed[bank.name], item, bank.name)
        shared = set.intersection(*(set(row) for row in rows.values()))
        return {metric: tuple(rows[item][metric] for item in ids) for metric in rows[ids[0]] if metric in shared}


def _item_marks(bank: TaskBank, key: str, instances: Sequence[Instance], filters: Sequence[str]) -> dict[str, float]:
    """The marks of an item that are numbers."""
    item = bank.items[key]
    task = bank.leaves[item.leaf]
    ordered = sorted(instances, key=lambda instance: instance.idx)
    row = {}
    for name in filters:
        for metric, value in task.process_results(item.doc, [i.filtered_resps[name] for i in ordered]).items():
            mark = mark_of(metric, value)
            if mark is not None:
                row[metric_name(metric, name, filters)] = mark
    return row


def _check_marks(row: dict[str, float], needed: set[str], item: str, task: str) -> None:
    """See that the metrics that are asked for are numbers; others that are none are taken out.

    Raises:
        ScoreFailure: one is not.
    """
    for metric in needed:
        finite(row.get(metric, math.nan), metric, item, task)
    for metric in [metric for metric, mark in row.items() if not math.isfinite(mark)]:
        del row[metric]


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
            banks[name] = open_bank(name, use, loaded, fitness.items, _asked(fitness, name))
    return banks


def _asked(fitness: Fitness, task: str) -> list[str | None]:
    """The metrics that objectives want of a task, in their order, None where one names none; then of tie-breaks."""
    using = [objective for label, objective in fitness.objectives.items() if task in fitness.keys(label)]
    return [each.metric for each in using] + [each.tie_break.metric for each in using if each.tie_break]


def needed_metrics(fitness: Fitness, table: ItemTable) -> dict[str, set[str]]:
    """The metrics of each task that must be numbers, as the task names them."""
    found = {name: map(task.metric, _asked(fitness, name)) for name, task in table.tasks.items()}
    return {name: {metric for metric in metrics if metric is not None} for name, metrics in found.items()}


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
