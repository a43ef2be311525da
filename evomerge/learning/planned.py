"""What learning will take, measured on one step before hours are spent."""

import time
from collections.abc import Callable

from evomerge.items import ItemTable
from evomerge.learn.course import BATCH
from evomerge.learning.ground import Ground
from evomerge.recipe import Grain, Recipe
from evomerge.trial import Draw, Evaluation, Failure, Lesson, Work
from evomerge.values import Value


class LearningPlan(Value):
    """What is learned: so many `coefficients` of a grain (None: the genes), and how.

    `items` are there to learn from and `held` to judge by, over all tasks; `steps` of `batch` items at `rate` are what
    the budget allows, none if it is too small. `seconds` are those of a step; `trouble` says why none could be made.
    """

    grain: Grain | None
    coefficients: int
    items: int
    held: int
    steps: int
    batch: int
    rate: float
    seconds: float
    trouble: str = ""


def learning_plan(
    ground: Ground, units: int, table: ItemTable, recipe: Recipe, evaluate: Callable[[Work], Evaluation]
) -> LearningPlan:
    """What learning from this recipe on takes if it may cost so many units: a step is tried out, twice."""
    course = ground.course(units, table)
    batch = course.batch if course is not None else BATCH[min(2, len(ground.objectives))][0]
    pools = ground.pools(table)
    each = max(1, batch // len(pools))
    places = {task: tuple(pool[:each]) for task, pool in pools.items()}
    coefficients = ground.layout.expanded(ground.layout.gathered(ground.weights(recipe)))
    refined = recipe.refined(coefficients)
    work = Work(
        id=0, number=0, recipe=refined, draw=Draw(pool="search", places=places), purpose="gradient",
        coefficients=coefficients if refined.arrays is not None else None,
        lesson=Lesson(grain=ground.layout.grain, weights=dict.fromkeys(places, 1.0)),
    )  # fmt: skip
    evaluate(work)  # The first one sets up what the others use.
    started = time.perf_counter()
    outcome = evaluate(work).outcome
    return LearningPlan(
        grain=None if ground.layout.ties is not None else ground.layout.grain,
        coefficients=ground.layout.size,
        items=sum(map(len, pools.values())),
        held=table.count("search", ground.held.places),
        steps=course.steps if course is not None else 0,
        batch=batch,
        rate=course.rate if course is not None else 0.0,
        seconds=time.perf_counter() - started,
        trouble=outcome.reason if isinstance(outcome, Failure) else "",
    )
