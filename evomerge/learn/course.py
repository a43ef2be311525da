"""How a descent goes, from what it may cost: steps, items a step, rate, looks."""

import math

from evomerge.learn.descent import Course
from evomerge.learn.gauss_newton import NewtonCourse
from evomerge.recipe import Grain

SLOPE = 3
"""Forward passes that a slope costs."""
STEPS = {1: 65, 2: 400}
"""Steps that a descent of one objective, or of a front, is meant to have."""
BATCH = {1: (16, 64), 2: (10, 32)}
"""Fewest and most items a step."""
LOOKS = {1: 5, 2: 3}
"""How often the average is looked at on held-out items, at the beginning and at the end included."""
BESIDE = 0.25
"""Share of a budget that may go to held-out items: of fixed recipes, looks, and what is learned in the end."""
MOST = 10
"""Times as many steps as are meant that a descent has at most: with a larger budget another one follows it."""
FEWEST = 10
"""Steps that are worth a descent."""
SLOWER = {1: 1.0, 2: 0.8}
"""Of a front the rate is so many times that of one objective: it has more steps, of fewer items."""
RATES: dict[Grain | None, float] = {None: 0.05, "tensor": 0.04, "column": 0.05, "row": 0.05}
"""How far a number goes in a step at first, by grain."""
NARROW = 80
"""Numbers that a source has in a tensor, on average, up to which that is so; of more the rate falls with the root."""

FEW = 64
"""Numbers, at most, by which the slopes of every item's own scores are wanted."""
FIRST = 100
"""Items that are learned from at first, or twice as many as there are numbers."""
EARLY = 5
"""Steps on these, if the budget is enough for more."""
LATER = 4
"""Steps on more items, at least; the budget says on how many."""
LEAST = 4
"""Steps that are worth it."""


def newton_course_for(units: int, look: int, items: int, numbers: int, sources: int) -> NewtonCourse | None:
    """The course of Gauss-Newton by so many `numbers`, of tensors with so many `sources`; None if it cannot be.

    It may cost so many `units`, a `look` after every step included; `items` are there to be learned from, of all tasks.
    """
    price = 2 + sources  # Forward, back, and each source's task vectors times what layers read.
    first = min(items, max(FIRST, 2 * numbers))
    left = units - 2 * look - EARLY * (price * first + look)
    most = min(items, (left + price * first - LATER * look) // (price * (LATER + 1)))
    if most <= first:  # Nothing is left for more of them.
        steps = (units - look) // (price * first + look)
        return NewtonCourse(steps=steps, early=0, first=first, items=first, price=price) if steps >= LEAST else None
    later = (left - price * (most - first)) // (price * most + look)
    return NewtonCourse(steps=EARLY + 1 + later, early=EARLY, first=first, items=most, price=price)


def usual_rate(grain: Grain | None, numbers: float, objectives: int) -> float:
    """The rate by default, where a source has so many numbers in a tensor on average.

    An output changes by the sum of what all of them do, and Adam moves all by as much.
    """
    return RATES[grain] * math.sqrt(min(1.0, NARROW / numbers)) * SLOWER[min(objectives, 2)]


def course_for(units: int, look: int, objectives: int, items: int, *, rate: float, batch: int | None) -> Course | None:
    """The course of a descent that may cost so many `units`; None if they are too few for one.

    A `look` costs so many units; `items` are there to be learned from, of the objective that has fewest; without
    a `batch` it is what the budget suggests.
    """
    kind = min(objectives, 2)
    slopes = (units - LOOKS[kind] * look) // SLOPE
    low, high = BATCH[kind]
    if batch is None:
        batch = min(max(low, slopes // STEPS[kind]), high)
    batch = min(batch, items)
    steps = min(slopes // max(1, batch), MOST * STEPS[kind])
    if steps < FEWEST:
        return None
    return Course(steps=steps, batch=batch, rate=rate, every=-(-steps // (LOOKS[kind] - 1)))


def held_for(units: int, tasks: int, models: int, objectives: int) -> int:
    """Items of each of so many tasks that a budget of `units` can hold out, if so many `models` are put to them."""
    puttings = models + LOOKS[min(objectives, 2)] * objectives
    return int(BESIDE * units / (tasks * puttings))
