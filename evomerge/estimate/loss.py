"""Losses of items: what is told of a task that gives scores, since it says more of an answer than right or wrong."""

from collections.abc import Sequence

import numpy as np

from evomerge.fitness import Fitness, Objective
from evomerge.items import ItemTable, TaskItems
from evomerge.trial import Draw, Marks, Scores

LOSS = "(loss)"
"""What a loss is called among marks, where a metric's name would stand."""
ACCURACIES = ("acc", "exact_match")
"""Metrics that say whether an answer is right, by the very scores that a loss is made of."""


def with_loss(fitness: Fitness, table: ItemTable) -> frozenset[str]:
    """Objectives that can be told by their loss: accuracies of tasks that give scores, unless they are to be low."""
    return frozenset(
        label
        for label, objective in fitness.objectives.items()
        if fitness.keys(label) and all(_has_loss(objective, table.tasks[key]) for key in fitness.keys(label))
    )


def _has_loss(objective: Objective, task: TaskItems) -> bool:
    scored = bool(task.search.golds) and task.metric(objective.metric) in ACCURACIES
    return scored and objective.direction in (None, "max")


def with_losses(marks: Marks, scores: Scores, draw: Draw, table: ItemTable) -> Marks:
    """Marks of search items, and among them the losses of tasks that give scores."""
    found = {task: dict(rows) for task, rows in marks.items()}
    for task, rows in scores.items():
        golds = table.tasks[task].search.golds
        places = range(len(golds)) if draw.places is None else draw.places[task]
        found[task][LOSS] = tuple(loss(row, golds[place]) for place, row in zip(places, rows, strict=True))
    return found


def loss(scores: Sequence[float], right: Sequence[int]) -> float:
    """Minus the log-probability of the right options among all, in nats; or of a whole answer, if none is right.

    That of several right options is of their probabilities' sum.
    """
    if not right:
        return -float(np.sum(scores))
    return float(np.logaddexp.reduce(scores) - np.logaddexp.reduce([scores[place] for place in right]))


def mean_probabilities(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each option of an item, as models give them on average, of each of which there are scores."""
    each = np.asarray(scores)
    shares = np.exp(each - np.logaddexp.reduce(each, axis=-1, keepdims=True))
    return tuple(float(share) for share in shares.mean(axis=0))


def imitation_loss(scores: Sequence[float], wanted: Sequence[float]) -> float:
    """The cross-entropy of options' probabilities with those that are wanted of them, in nats."""
    return float(np.logaddexp.reduce(scores) - np.dot(wanted, scores))
