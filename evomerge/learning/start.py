"""Where a descent begins: at the fixed recipes whose answers are nearest to right ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.estimate.loss import imitation_loss, loss
from evomerge.items import ItemTable
from evomerge.learn.adam import Floats
from evomerge.learning.ground import Ground
from evomerge.results import with_scores
from evomerge.session import Session
from evomerge.trial import Observation
from evomerge.values import Genome

EVEN = 0.94
"""Of the trade-off that an end of a front begins with: this share is the objective's, the rest everybody's."""


Wanted = Mapping[str, Mapping[int, tuple[float, ...]]]
"""Probabilities of options that are imitated, by task and place."""


def best_fixed(session: Session, ground: Ground, wanted: Wanted) -> tuple[int, ...]:
    """Candidates to begin with: of several objectives the one whose worst is best, then that of each end of the front.

    What is hopeless at one objective has slopes that lead nowhere. None if nobody was scored.
    """
    losses = {
        number: found for number in session.state.candidates if (found := _losses(session, ground, wanted, number))
    }
    if not losses:
        return ()
    objectives = len(ground.objectives)
    even = min(losses, key=lambda n: (max(losses[n]), sum(losses[n]), n))
    ends = np.eye(objectives) * EVEN + (1 - EVEN) / objectives if ground.vectors > 1 else ()
    return (even, *(min(losses, key=lambda n: (float(weights @ losses[n]), n)) for weights in ends))


def terms(ground: Ground, genomes: Sequence[Genome]) -> Floats:
    """Vectors c_0, c_1, ... (objectives, size) of a front through the recipes that it begins with; see `tradeoff`."""
    vectors = [ground.layout.gathered(ground.weights(ground.frame(genome))) for genome in genomes]
    middle, *ends = vectors
    return np.stack([middle, *((end - ends[-1]) / 2 for end in ends[:-1])])


def _losses(session: Session, ground: Ground, wanted: Wanted, number: int) -> list[float] | None:
    """Mean losses by objective of a candidate in the space; None if there are none."""
    if session.state.candidates[number].genome is None:
        return None
    observation = with_scores(Observation(number=number, utilities=None), session.state, session.store)
    by_task = mean_losses(observation, session.store.table, wanted)
    tasks = [[by_task[task] for task in tasks if task in by_task] for tasks in ground.objectives.values()]
    return [float(np.mean(each)) for each in tasks] if all(tasks) else None


def mean_losses(observation: Observation, table: ItemTable, wanted: Wanted) -> dict[str, float]:
    """The mean loss of the items of each task that scores are known of: by what is `wanted` of them, or is right."""
    found = {}
    for task, rows in (observation.scores or {}).items():
        golds, soft, each = table.tasks[task].search.golds, wanted.get(task), []
        for place, row in zip((observation.rows or {})[task], rows, strict=True):
            each.append(loss(row, golds[place]) if soft is None else imitation_loss(row, soft[place]))
        found[task] = float(np.mean(each))
    return found
