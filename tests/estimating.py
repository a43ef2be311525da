"""A ledger to estimate from: one task, two parents that were put to everything, six candidates of two draws."""

from collections.abc import Callable

import numpy as np

from evomerge.estimate import Ledger, Piece
from evomerge.estimate.designs import simple_random
from evomerge.estimate.evidence import Floats
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.trial import Draw

SEARCH_ITEMS = 40
GENES = 3
Marks = Callable[[np.random.Generator, int], Floats]


def table(items: int = SEARCH_ITEMS, task: str = "sums", metric: str = "nll") -> ItemTable:
    ids = tuple(f"item {i}" for i in range(items))
    pool = Pool(ids=ids, clusters=ids)
    return ItemTable(tasks={task: TaskItems(search=pool, confirm=pool, metrics={metric: True})})


def whole_piece(number: int, genome: tuple[float, ...], marks: Floats) -> Piece:
    return Piece(number, genome, Draw(pool="search"), {"sums": {"nll": tuple(map(float, marks))}})


def a_draw(generation: int, count: int, items: int = SEARCH_ITEMS) -> Draw:
    sample = simple_random(items, count, np.random.default_rng((generation, 77)))
    return Draw(
        pool="search",
        places={"sums": tuple(map(int, sample.places))},
        probabilities={"sums": tuple(map(float, sample.probabilities))},
        generation=generation,
    )


def piece_on(draw: Draw, number: int, genome: tuple[float, ...], marks: Floats, *, again: bool = False) -> Piece:
    """What a model with these marks on all items gets on a draw."""
    assert draw.places is not None
    got = tuple(float(marks[place]) for place in draw.places["sums"])
    return Piece(number, genome, draw, {"sums": {"nll": got}}, again)


def filled_ledger(make: Marks, items: int = SEARCH_ITEMS) -> Ledger:
    rng = np.random.default_rng(3)
    ledger = Ledger(table(items))
    for number in range(2):
        ledger.add(whole_piece(number, (float(number),) * GENES, make(rng, items)), is_parent=True)
    parents = ledger.parents_marks("sums", "nll")
    for number in range(2, 8):
        marks = np.where(rng.random(items) < 0.5, parents[0], parents[1])
        ledger.add(piece_on(a_draw(number // 5, 16, items), number, tuple(rng.random(GENES)), marks))
    return ledger


def drawn_piece(ledger: Ledger, *, generation: int, count: int = 16) -> Piece:
    """Another candidate on items of its own draw."""
    parents = ledger.parents_marks("sums", "nll")
    if count == SEARCH_ITEMS:
        return whole_piece(99, (0.5,) * GENES, parents[0])
    return piece_on(a_draw(generation, count), 99, (0.5,) * GENES, parents[0])
