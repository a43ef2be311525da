"""One candidate's items on several workers: draws cut in pieces, and marks put together again."""

import math
from collections.abc import Sequence

from evomerge.items import COST, ItemTable
from evomerge.trial import Draw, Evaluation, Failure, LayerEvaluations, Scores, Seconds, Work

FEWEST = 8
"""Items worth merging the candidate for on one more worker."""
MOST = 8
"""Pieces of a work at most."""


def pieces_for(workers: int, population: int) -> int:
    """In how many pieces works are cut so that a population is done soonest: one, unless there are more workers.

    It is settled for a run, whoever is there at the moment: what a model gets for an item can depend, in its last bits,
    on the items beside it.
    """
    if workers <= population:
        return 1
    return min(range(1, MOST + 1), key=lambda pieces: math.ceil(population * pieces / workers) / pieces)


def shards_of(work: Work, table: ItemTable, count: int) -> list[Work]:
    """The work as up to `count` works with items apart, each task's split evenly; itself if it has too few items.

    A lesson is not cut: who gives it has cut it, and adds up what comes back in an order of its own.
    """
    if work.lesson is not None:
        return [work]
    pool = work.draw.pool
    count = min(count, table.count(pool, work.draw.places) // FEWEST)
    if count < 2:
        return [work]
    places = work.draw.places or {name: tuple(range(len(task.pool(pool).ids))) for name, task in table.tasks.items()}
    pieces = [
        {
            name: piece
            for name, row in places.items()
            if (piece := row[len(row) * i // count : len(row) * (i + 1) // count])
        }
        for i in range(count)
    ]
    # A worker needs to know which items, and nothing of the chance that chose them.
    return [work.model_copy(update={"draw": Draw(pool=pool, places=piece)}) for piece in pieces]


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """What the pieces of a work say together; the first failure, if there is one. Seconds are those of all workers."""
    if len(parts) == 1:
        return parts[0]
    seconds = Seconds(merge=sum(p.seconds.merge for p in parts), score=sum(p.seconds.score for p in parts))
    layers = [part.layer_evaluations for part in parts if part.layer_evaluations is not None]
    return parts[0].model_copy(
        update={
            "outcome": _outcome([part.outcome for part in parts]),
            "scores": _scores([part.scores for part in parts if part.scores is not None]),
            "seconds": seconds,
            "layer_evaluations": LayerEvaluations(run=sum(e.run for e in layers), reused=sum(e.reused for e in layers))
            if layers
            else None,
            "worker": "+".join(part.worker for part in parts),
        }
    )


def _scores(parts: Sequence[Scores]) -> dict[str, tuple[tuple[float, ...], ...]] | None:
    tasks = dict.fromkeys(task for each in parts for task in each)
    return {task: tuple(row for each in parts for row in each.get(task, ())) for task in tasks} if parts else None


def _outcome(
    outcomes: Sequence[dict[str, dict[str, tuple[float, ...]]] | Failure],
) -> dict[str, dict[str, tuple[float, ...]]] | Failure:
    marks = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            return outcome
        marks.append(outcome)
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for task in dict.fromkeys(task for each in marks for task in each):
        rows = [each[task] for each in marks if task in each]
        # What a model costs is said once, whatever it is put to.
        kept = rows[:1] if task == COST else rows
        found[task] = {metric: tuple(mark for row in kept for mark in row[metric]) for metric in kept[0]}
    return found
