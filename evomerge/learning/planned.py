"""What learning will take, measured on one step before hours are spent."""

import time
from collections.abc import Callable
from typing import Literal, assert_never

from evomerge.items import ItemTable
from evomerge.learn.course import BATCH, LOOKS
from evomerge.learn.descent import Course
from evomerge.learn.gauss_newton import NewtonCourse
from evomerge.learning.ground import Ground
from evomerge.recipe import Coefficients, Grain, Recipe
from evomerge.store import learning_bytes
from evomerge.trial import Draw, Evaluation, Failure, Lesson, Work
from evomerge.values import Value


class LearningPlan(Value):
    """What is learned: so many `coefficients` of a grain (None: the genes), and how.

    `items` are there to learn from and `held` to judge by, over all tasks; `steps` of `batch` items at `rate` are what
    the budget allows, none if it is too small. `seconds` are those of a step; `trouble` says why none could be made.
    Gauss-Newton, for a few genes, has no rate, and begins with fewer items. `run_bytes` are what it adds to the run on
    disk.
    """

    method: Literal["adam", "gauss_newton"] = "adam"
    grain: Grain | None
    coefficients: int
    items: int
    held: int
    steps: int
    batch: int
    rate: float
    seconds: float
    run_bytes: int = 0
    trouble: str = ""


def learning_plan(
    ground: Ground, units: int, table: ItemTable, recipe: Recipe, evaluate: Callable[[Work], Evaluation]
) -> LearningPlan:
    """What learning from this recipe on takes if it may cost so many units: a step is tried out, twice."""
    course = ground.course(units, table)
    batch = _batch(course, ground)
    pools = ground.pools(table)
    each = max(1, batch // len(pools))
    places = {task: tuple(pool[:each]) for task, pool in pools.items()}
    coefficients = ground.layout.expanded(ground.layout.gathered(ground.weights(recipe)))
    refined = recipe.refined(coefficients)
    newton = isinstance(course, NewtonCourse)
    work = Work(
        id=0, number=0, recipe=refined, draw=Draw(pool="search", places=places), purpose="gradient",
        coefficients=coefficients if refined.arrays is not None else None,
        lesson=Lesson(weights={}, ties=ground.layout.tied()) if newton
        else Lesson(grain=ground.layout.grain, weights=dict.fromkeys(places, 1.0)),
    )  # fmt: skip
    evaluate(work)  # The first one sets up what the others use.
    started = time.perf_counter()
    outcome = evaluate(work).outcome
    return LearningPlan(
        method="gauss_newton" if newton else "adam",
        grain=None if ground.layout.ties is not None else ground.layout.grain,
        coefficients=ground.layout.size,
        items=sum(map(len, pools.values())),
        held=table.count("search", ground.held.places),
        steps=course.steps if course is not None else 0,
        batch=batch,
        rate=course.rate if isinstance(course, Course) else 0.0,
        seconds=time.perf_counter() - started,
        run_bytes=_bytes(ground, recipe, coefficients, course),
        trouble=outcome.reason if isinstance(outcome, Failure) else "",
    )


def _batch(course: Course | NewtonCourse | None, ground: Ground) -> int:
    """Items that a step learns from, in the end."""
    match course:
        case Course():
            return course.batch
        case NewtonCourse():
            return course.items
        case None:
            return BATCH[min(2, ground.vectors)][0]
        case _:
            assert_never(course)


def _bytes(ground: Ground, recipe: Recipe, coefficients: Coefficients, course: Course | NewtonCourse | None) -> int:
    if course is None:
        return 0
    return learning_bytes(recipe, coefficients, len(ground.points), ground.vectors, LOOKS[min(2, ground.vectors)])
