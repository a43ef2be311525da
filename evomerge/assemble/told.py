"""What an optimiser is told of candidates, and on how many items, where the run file leaves that open."""

from evomerge.errors import SpecError
from evomerge.estimate import with_loss
from evomerge.fitness import EstimatorSpec, Fitness
from evomerge.items import ItemTable
from evomerge.learn.losses import Right
from evomerge.learn.sheet import Questions, Subject
from evomerge.spec import RunSpec

ENOUGH, FEWEST = 100, 50
"""Items that a search by scores puts candidates to where no budget of items is given, and at least where one is."""
PER_GENE = 5
"""Candidates a gene that its items leave the budget for."""


def with_told(run: RunSpec, table: ItemTable, genes: int) -> RunSpec:
    """The run with what its optimiser is told written out: the loss of a single objective, where it has one.

    A tie break says what else to tell equal accuracies apart by. Of several objectives a front in losses spreads over
    models that are right about nothing, and weights of a sum are about metrics.

    Raises:
        SpecError: losses are asked for, and no objective has any.
    """
    optimizer, losses = run.chosen, with_loss(run.fitness, table)
    assert optimizer is not None, "chosen before"
    if optimizer.wants_scores and losses and "estimator" not in run.fitness.model_fields_set:
        return run.model_copy(update={"fitness": _with_scores(run, table, genes)})
    if "told" not in type(optimizer).model_fields:
        return run
    if optimizer.told == "loss" and not losses:
        raise SpecError(
            "optimizer.told: no objective is acc or exact_match of a task that gives scores; leave told out"
        )
    objectives = list(run.fitness.objectives.values())
    suited = "loss" if losses and len(objectives) == 1 and objectives[0].tie_break is None else "metric"
    return run.model_copy(update={"optimizer": optimizer.model_copy(update={"told": optimizer.told or suited})})


def subjects(fitness: Fitness, table: ItemTable) -> tuple[Subject, ...]:
    """What each objective is learned from: its tasks' items where these have scores that say what it says."""
    known = with_loss(fitness, table)
    return tuple(
        {key: _questions(table, key) for key in fitness.keys(label)} if label in known else {}
        for label in fitness.objectives
    )


def _questions(table: ItemTable, key: str) -> Questions:
    pool = table.tasks[key].search
    return Questions(tuple(Right(golds=golds) for golds in pool.golds), tuple(pool.shares().tolist()))


def _with_scores(run: RunSpec, table: ItemTable, genes: int) -> Fitness:
    """The same items for all candidates: scores tell them apart without a new draw."""
    items = items_with_scores(run, table, genes)
    estimator = EstimatorSpec(kind="mean", items=items, rotate=False, refresh=0.0)
    return run.fitness.model_copy(update={"estimator": estimator})


def items_with_scores(run: RunSpec, table: ItemTable, genes: int) -> int:
    """Items of each task that candidates are put to where a search by scores chooses how many."""
    budget, tasks = run.budget.item_evaluations, len(table.tasks)
    count = ENOUGH if budget is None else max(FEWEST, budget // (PER_GENE * genes))
    return min(-(-count // tasks), max(len(task.search.ids) for task in table.tasks.values()))
