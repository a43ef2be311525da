"""The bytes that a run will take on disk, added up from samples of what will be written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from evomerge.events import Asked, Assigned, Evaluated, Event, MarksAt, ScoresAt, Told
from evomerge.fitness import EstimatorSpec, by_choice
from evomerge.items import ItemTable, PoolName
from evomerge.recipe import Coefficients, Parents, Recipe
from evomerge.space import Gene
from evomerge.spec import RunSpec
from evomerge.store.journal import beginning, encoded
from evomerge.trial import Draw, LayerEvaluations, Observation, Seconds
from evomerge.values import Value

SOME = 0.123456789012345
"""A number of as many digits as most have."""
SCORES = 5
"""Of an item: options, or tokens of a reference answer."""
OPENING = 2_000
"""Bytes of the events that open and close a run."""
LOOK = 700
"""Bytes of the line that tells of a look."""
STATES = 2
"""States of a descent that are kept at a time: of the last look, and since."""
NUMBERS = 20
"""Bytes of a state by coefficient: what Adam knows of it, the average and the best."""


@dataclass(frozen=True)
class Shape:
    """What the size of a run depends on.

    `candidates` are those of the search without the `outside`, fixed recipes that the space does not hold; `confirmed`
    counts models that are put to confirm items, `reported` those put to report items.
    """

    run: RunSpec
    table: ItemTable
    parents: Parents
    genes: Sequence[Gene]
    candidates: int
    outside: Sequence[Recipe]
    confirmed: int
    reported: int


def expected_bytes(shape: Shape) -> int:
    """Bytes of spec, items, journal, marks and scores together, if no candidate fails."""
    named = len(shape.parents.names)
    fixed = sum(_line(_asked(shape, recipe)) for recipe in shape.outside)
    search = shape.candidates * (_line(_asked(shape, None)) + _line(_told(shape)))
    drawn = max(0, shape.candidates + len(shape.outside) - named) * _of_search(shape)
    models: dict[PoolName, int] = {"search": named, "confirm": shape.confirmed, "report": shape.reported}
    whole = sum(
        count * _of_work(shape, Draw(pool=pool), _all(shape.table, pool))
        for pool, count in models.items()
        if shape.table.count(pool)
    )
    spec = 2 * len(_text(shape.run)) + 2 * len(_text(shape.parents))  # In YAML, one line a key.
    return round(OPENING + spec + len(_text(shape.table)) + fixed + search + drawn + whole)


def learning_bytes(frame: Recipe, coefficients: Coefficients, ends: int, vectors: int, looks: int) -> int:
    """Bytes that learning adds: the recipes that it ends in with their side files, what it tells, and its states.

    There are `ends` of it, with such coefficients each; a state is of so many `vectors` of them.
    """
    learned = frame.refined(coefficients)
    side = 0 if learned.arrays is None else len(coefficients.content)
    numbers = sum(array.size for array in coefficients.arrays.values())
    return ends * (len(_text(learned)) + side) + looks * LOOK + STATES * vectors * numbers * NUMBERS


def _text(value: Value) -> str:
    return json.dumps(value.to_plain())


def _line(event: Event) -> int:
    return len(encoded(event, beginning(chained=True))[1]) + 2  # Numbers get longer.


def _all(table: ItemTable, pool: PoolName) -> dict[str, int]:
    return {name: len(task.pool(pool).ids) for name, task in table.tasks.items()}


def _asked(shape: Shape, recipe: Recipe | None) -> Asked:
    """A candidate proposed: by its genome, or by its recipe where no genome says it."""
    genome = None if recipe is not None else tuple(gene.snapped(SOME) for gene in shape.genes)
    return Asked(
        number=shape.candidates, origin="search", genome=genome, digest="sha256:" + 64 * "0", recipe=recipe,
        generation=shape.candidates // 10,
    )  # fmt: skip


def _told(shape: Shape) -> Told:
    numbers = (SOME,) * len(shape.run.fitness.objectives)
    return Told(observations=(Observation(number=shape.candidates, utilities=numbers, errors=numbers),))


def _of_search(shape: Shape) -> float:
    """Bytes of a candidate's works in the search: a draw, rung by rung, and its share of scoring elites again."""
    spec, table = shape.run.fitness.estimator, shape.table
    counts = {name: spec.drawn_of(task) for name, task in table.tasks.items()}
    if sum(counts.values()) == table.count("search") and not spec.rungs:
        return _of_work(shape, Draw(pool="search"), counts)
    ends = [0, *spec.rungs, max(counts.values())]
    total = 0.0
    for rung, (start, end) in enumerate(pairwise(ends)):
        piece = {name: min(end, count) - start for name, count in counts.items() if count > start}
        total += spec.keep**rung * _of_work(shape, _draw(spec, table, piece), piece)
    again = spec.refresh if spec.rotates else 0.0
    return total + again * _of_work(shape, _draw(spec, table, counts), counts)


def _draw(spec: EstimatorSpec, table: ItemTable, counts: Mapping[str, int]) -> Draw:
    """A draw of so many items of each task, from all over their pools."""
    chosen = by_choice(spec.chosen_design)
    places, probabilities = {}, {}
    for name, count in counts.items():
        pool = len(table.tasks[name].search.ids)
        places[name] = tuple(index * pool // count for index in range(count))
        even = 1.0 if chosen else round(spec.drawn_of(table.tasks[name]) / pool, 9)
        probabilities[name] = ((round(SOME, 9) if spec.chosen_design == "active" else even),) * count
    masses = {name: (round(SOME, 9),) * count for name, count in counts.items()}
    of = dict(counts) if spec.rungs else None
    return Draw(
        pool="search", places=places, probabilities=probabilities, masses=masses if chosen else None, generation=100,
        of=of,
    )  # fmt: skip


def _of_work(shape: Shape, draw: Draw, counts: Mapping[str, int]) -> float:
    """Bytes of one work: that it was handed out, that it came back, its marks, and its scores where they are wanted."""
    tasks = shape.table.tasks
    marked = {name: dict.fromkeys(tasks[name].metrics, count) for name, count in counts.items()}
    marks = 8 * sum(sum(metrics.values()) for metrics in marked.values())
    optimizer = shape.run.chosen
    wanted = draw.pool == "search" and optimizer is not None and (optimizer.wants_scores or optimizer.told == "loss")
    scored = {name: (SCORES,) * count for name, count in counts.items() if wanted and tasks[name].search.golds}
    scores = 4 * SCORES * sum(map(len, scored.values()))
    number = shape.candidates
    back = Evaluated(
        at=1e9 + SOME, elapsed=1e4 + SOME, work=number, number=number, worker="machine:1234",
        marks=MarksAt(offset=10**6, counts=marked, crc=2**31), seconds=Seconds(merge=SOME, score=SOME),
        layer_evaluations=LayerEvaluations(run=100),
        scores=ScoresAt(offset=10**6, counts=scored, crc=2**31) if scored else None,
    )  # fmt: skip
    return _line(Assigned(work=number, number=number, draw=draw, purpose="search")) + _line(back) + marks + scores
