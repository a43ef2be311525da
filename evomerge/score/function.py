"""A metric of one's own instead of lm-eval tasks: a Python callable from a live model to marks."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Objective
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.score.bank import Item, pool_of, split_items
from evomerge.score.failure import GradeFailure, finite
from evomerge.trial import Draw, Marks, Scores

LEFT_OUT = "score"
"""The metric of an objective that names none."""
PROMPTS = ("split", "fewshot", "chat_template", "system", "generation")
"""Fields of an objective that say which documents of an lm-eval task are prompts, and how."""


GivenMarks: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]
"""Task, then metric, then one mark per id in the order asked."""
GivenScores: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Task, then for each id in the order asked its scores: what they are says `Golds`."""


class ScorerFunction(Protocol):
    """`items` lists item ids by task; a call marks some of them with the live model.

    It gets the model, its tokenizer, and the ids wanted by task, and gives back their marks; or marks and scores, if it
    has `golds`. Higher is better, unless an objective says `direction: min`. An objective that names no metric means
    `score`.
    """

    items: Mapping[str, Sequence[str]]

    def __call__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Mapping[str, Sequence[str]], /
    ) -> GivenMarks | tuple[GivenMarks, GivenScores]:
        """Marks of the wanted items, or marks and scores."""
        ...


@runtime_checkable
class Golds(Protocol):
    """What a callable says besides, so that a search can learn from every answer: what the scores of items are.

    `golds` are, by task and item in the order of `items`, the right ones among its scores, which are log-likelihoods of
    options. Where none is right they are log-probabilities of a reference answer's tokens. Other tasks give no scores.
    """

    golds: Mapping[str, Sequence[Sequence[int]]]


class FunctionScorer:
    """Lets a callable stand in for lm-eval; its tasks are those that the fitness names."""

    def __init__(
        self, function: ScorerFunction, fitness: Fitness, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._function = function
        self._model = model
        self._tokenizer = tokenizer
        self.notes: set[str] = set()
        self.table = function_table(function, fitness)

    def marks(self, draw: Draw) -> Marks:
        """Marks of the drawn items.

        Raises:
            GradeFailure: the callable gave another number of marks than there are items, or one that is not finite.
        """
        wanted = self.table.drawn(draw.pool, draw.places)
        return self._marks(wanted, self._called(wanted)[0])

    def scored(self, draw: Draw) -> tuple[Marks, Scores]:
        """Marks of the drawn items, and scores of those whose tasks give any.

        Raises:
            GradeFailure: the callable gave another number of either than there are items, or one that is not finite.
        """
        wanted = self.table.drawn(draw.pool, draw.places)
        marks, scores = self._called(wanted)
        return self._marks(wanted, marks), self._scores(wanted, scores)

    def _called(self, wanted: Mapping[str, Sequence[str]]) -> tuple[GivenMarks, GivenScores]:
        given = self._function(self._model, self._tokenizer, wanted)
        return given if isinstance(given, tuple) else (given, {})

    def _marks(self, wanted: Mapping[str, Sequence[str]], given: GivenMarks) -> Marks:
        marks: dict[str, dict[str, tuple[float, ...]]] = {}
        for task, ids in wanted.items():
            marks[task] = {}
            for metric in self.table.tasks[task].metrics:
                values = marks[task][metric] = tuple(map(float, given.get(task, {}).get(metric, ())))
                if len(values) != len(ids):
                    raise GradeFailure(
                        f"the scorer gave {len(values)} marks of {metric} for {len(ids)} items of {task}"
                    )
                for item, value in zip(ids, values, strict=True):
                    finite(value, metric, item, task)
        return marks

    def _scores(self, wanted: Mapping[str, Sequence[str]], given: GivenScores) -> Scores:
        scores: dict[str, tuple[tuple[float, ...], ...]] = {}
        for task, ids in wanted.items():
            if not self.table.tasks[task].search.golds:
                continue
            rows = given.get(task, ())
            if len(rows) != len(ids):
                raise GradeFailure(f"the scorer gave scores of {len(rows)} items for {len(ids)} items of {task}")
            scores[task] = tuple(tuple(float(np.float32(value)) for value in row) for row in rows)
            for item, row in zip(ids, scores[task], strict=True):
                if not row:
                    raise GradeFailure(f"the scorer gave no scores for item {item} of {task}")
                for value in row:
                    finite(value, "a score", item, task)
        return scores


def function_table(function: ScorerFunction, fitness: Fitness) -> ItemTable:
    """The items of a callable, split like those of a task.

    Raises:
        SpecError: the fitness names a task that the callable has no items for, or shapes prompts that there are not; or
            the callable has golds of another number of items.
    """
    for label, objective in fitness.objectives.items():
        _check_objective(function, label, objective)
    tasks: dict[str, TaskItems] = {}
    for task, metrics in _metrics(fitness).items():
        ids = [Item(str(key), str(key), task, i, {}) for i, key in enumerate(function.items[task])]
        golds = _golds(function, task, len(ids))
        search, confirm, report = (_with_golds(side, golds) for side in split_items(task, ids, fitness.items))
        tasks[task] = TaskItems(search=search, confirm=confirm, report=report, metrics=metrics)
    return ItemTable(tasks=tasks)


def _golds(function: ScorerFunction, task: str, count: int) -> Sequence[Sequence[int]]:
    golds = function.golds.get(task, ()) if isinstance(function, Golds) else ()
    if len(golds) not in (0, count):
        raise SpecError(f"the scorer has golds of {len(golds)} items of {task!r}, and {count} items; give one of each")
    return golds


def _with_golds(side: Sequence[Item], golds: Sequence[Sequence[int]]) -> Pool:
    right = tuple(tuple(map(int, golds[item.index])) for item in side) if golds else ()
    return pool_of(side).model_copy(update={"golds": right})


def _check_objective(function: ScorerFunction, label: str, objective: Objective) -> None:
    for field in PROMPTS:
        if getattr(objective, field) != Objective.model_fields[field].default:
            raise SpecError(f"fitness.objectives.{label}.{field} has no meaning with a scorer; leave it out")
    for task in objective.task_names():
        if task not in function.items:
            known = ", ".join(function.items)
            raise SpecError(f"fitness.objectives.{label}: the scorer has no items for {task!r}; it has {known}")


def _metrics(fitness: Fitness) -> dict[str, dict[str, bool]]:
    """The metrics that a fitness wants of each task, what is meant by a metric left out before all others."""
    wanted: dict[str, list[str]] = {}
    for objective in fitness.objectives.values():
        for task in objective.task_names():
            names = wanted.setdefault(task, [])
            names.insert(0 if objective.metric is None else len(names), objective.metric or LEFT_OUT)
            names += [objective.tie_break.metric] if objective.tie_break else []
    return {task: dict.fromkeys(names, True) for task, names in wanted.items()}
