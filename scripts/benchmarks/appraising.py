"""What estimates cost: of one candidate on large benchmarks, and the response models of a long search."""

import time
from dataclasses import dataclass

import numpy as np

from evomerge.estimate import Appraiser, Grader, Ledger, Piece
from evomerge.fitness import EstimatorSpec, Fitness, Objective
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.schedule import Draws
from evomerge.trial import Draw

GENES = 8
TOGETHER = 8
"""Candidates of a generation."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds: of the last candidate's estimates, of the last refit, of all refits there were."""

    estimate: float
    refit: float
    all_refits: float


def cost_of(items: int, tasks: int, candidates: int, drawn: int = 50) -> Cost:
    """The costs on `tasks` benchmarks of `items` in all, each an objective, after so many candidates."""
    names = [f"task {number}" for number in range(tasks)]
    table = ItemTable(tasks={name: _items(items // tasks) for name in names})
    fitness = Fitness(objectives={name: Objective(task=name) for name in names}, estimator=EstimatorSpec(items=drawn))
    ledger = _searched(table, candidates, drawn)
    appraiser = Appraiser(Grader(fitness, table), ledger)
    last = candidates // TOGETHER
    seconds = []
    for generation in range(last + 1):
        started = time.process_time()
        for name in names:
            appraiser.expectation(name, "acc").stack(generation)
        seconds.append(time.process_time() - started)
    draw = Draws(appraiser, fitness.estimator, 0).draw(last)
    ledger.add(_answered(candidates + 2, draw, np.random.default_rng(1)))
    started = time.process_time()
    appraiser.observe([candidates + 2])
    return Cost(time.process_time() - started, seconds[-1], sum(seconds))


def _items(count: int) -> TaskItems:
    ids = tuple(map(str, range(count)))
    pool = Pool(ids=ids, clusters=ids)
    return TaskItems(search=pool, confirm=pool, metrics={"acc": True})


def _searched(table: ItemTable, candidates: int, drawn: int) -> Ledger:
    """Two parents that answered everything, and candidates that were drawn some items each."""
    rng = np.random.default_rng(0)
    ledger = Ledger(table)
    for number in range(2):
        places = {task: tuple(range(len(items.search.ids))) for task, items in table.tasks.items()}
        answers = _answered(number, Draw(pool="search", places=places), rng)
        ledger.add(Piece(number, (float(number),) * GENES, Draw(pool="search"), answers.marks), is_parent=True)
    for number in range(candidates):
        ledger.add(_answered(number + 2, _random(table, drawn, number // TOGETHER, rng), rng))
    return ledger


def _random(table: ItemTable, count: int, generation: int, rng: np.random.Generator) -> Draw:
    sizes = {task: len(items.search.ids) for task, items in table.tasks.items()}
    return Draw(
        pool="search",
        places={task: tuple(map(int, rng.permutation(size)[:count])) for task, size in sizes.items()},
        probabilities={task: (count / size,) * count for task, size in sizes.items()},
        generation=generation,
    )


def _answered(number: int, draw: Draw, rng: np.random.Generator) -> Piece:
    marks = {
        task: {"acc": tuple((rng.random(len(places)) < 0.6).astype(float).tolist())}
        for task, places in (draw.places or {}).items()
    }
    return Piece(number, tuple(rng.random(GENES)), draw, marks)
