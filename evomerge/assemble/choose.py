"""Which optimiser suits a run whose file leaves that open, and why, in plain words."""

from collections.abc import Sequence
from typing import NamedTuple, assert_never

from evomerge.assemble.learn import held_estimator, units_of, with_learning
from evomerge.assemble.references import refuse_imitation
from evomerge.assemble.told import items_with_scores
from evomerge.errors import SpecError
from evomerge.estimate import with_loss
from evomerge.fitness import EstimatorSpec
from evomerge.items import ItemTable
from evomerge.learn.course import course_for
from evomerge.learn.tradeoff import points_of
from evomerge.optimize.build import resolve
from evomerge.recipe import Parents
from evomerge.space import (
    BlendSpec,
    Gene,
    JointSpec,
    PathSpec,
    RepeatSpec,
    SpaceSpec,
    StackSpec,
    SwapSpec,
    bind,
    fixed_recipes,
)
from evomerge.spec import AutoSpec, CmaSpec, GradientSpec, Nsga2Spec, OptimizerSpec, RunSpec, SurrogateSpec, gradient_of

MOSTLY_REAL = 4
"""One discrete gene among so many is not too many for CMA-ES, nor for a model over the genes."""
FEW = 30
"""Genes that a model of the scores over them can tell apart by as many candidates as a search has."""
EACH = 4
"""Candidates a gene that such a model takes."""


class Choice(NamedTuple):
    """An optimiser, and why it is that one, unless the run file names it."""

    optimizer: OptimizerSpec
    why: str | None = None


def choose(run: RunSpec, parents: Parents, table: ItemTable | None = None, *, scorer: bool = False) -> Choice:
    """The optimiser that the run names; or else what suits its space, its fitness and its budget.

    That is `gradient` where weights have slopes and objectives have scores, `surrogate` where there are scores of a few
    genes, and evolution for the rest. Without a `table` of items nothing is known of scores; through a `scorer` of the
    user's there is no way back.
    """
    if not isinstance(run.optimizer, AutoSpec):
        return Choice(run.optimizer)
    if run.space.grain is not None:
        return Choice(GradientSpec(), "the space has a grain, and such weights are learned along their slopes")
    if any(objective.reference != "target" for objective in run.fitness.objectives.values()):
        return Choice(GradientSpec(), "experts are imitated, along slopes")
    genes, objectives = bind(run.space, parents).genes, len(run.fitness.objectives)
    if table is None:
        return evolution(genes, objectives, "the tasks are not known yet")
    opaque = "a scorer in Python has no slopes" if scorer else None
    trouble = opaque or _without_slopes(run.space) or _without_scores(run, table)
    trouble = trouble or _without_descent(run, parents, table)
    if trouble is None:
        return Choice(GradientSpec(), "every objective has scores, and the space's weights have slopes")
    if _fits_model(run, genes, table):
        return Choice(SurrogateSpec(), f"{trouble}; every objective has scores, and {len(genes)} genes are few")
    return evolution(genes, objectives, trouble)


def with_defaults(
    run: RunSpec, wanted: OptimizerSpec, parents: Parents, table: ItemTable | None = None, workers: int = 1
) -> RunSpec:
    """The run with this optimiser written out, as it suits so many workers and, if they are known, the items.

    Raises:
        SpecError: nothing is searched, or what is to be learned has no slopes.
    """
    genes = bind(run.space, parents).genes
    if not genes:
        raise SpecError("space: nothing is searched, every number is fixed; give weight or density a range")
    grain = run.space.grain
    optimizer = resolve(wanted, genes, workers)
    if (learned := gradient_of(optimizer)) is not None:
        run = with_learning(run, learned, parents, table)
        return run.model_copy(update={"optimizer": optimizer})
    refuse_imitation(run, optimizer.kind)
    if grain is not None:
        raise SpecError(
            f"space.grain: weights of a {grain} are learned, and {optimizer.kind} searches genes; leave grain out, or"
            " optimizer"
        )
    return run.model_copy(update={"optimizer": optimizer})


def evolution(genes: Sequence[Gene], objectives: int, trouble: str) -> Choice:
    """CMA-ES for one objective and mostly real genes, otherwise NSGA-II; `trouble` is why it is neither learned."""
    if objectives > 1:
        return Choice(Nsga2Spec(), f"{trouble}; several objectives")
    if _mostly_real(genes):
        return Choice(CmaSpec(), f"{trouble}; one objective, and mostly real genes")
    # Among dozens of binary genes CMA-ES loses its way: 60 of them took it half as long again, if it got there.
    return Choice(Nsga2Spec(), f"{trouble}; many genes are discrete")


def _mostly_real(genes: Sequence[Gene]) -> bool:
    return MOSTLY_REAL * sum(gene.discrete for gene in genes) <= len(genes)


def _without_slopes(space: SpaceSpec) -> str | None:
    """What is searched that has no slopes."""
    match space:
        case BlendSpec():
            low, high = space.weights
            if low == high:
                return "weights are fixed"
            return "densities have no slopes" if isinstance(space.density, tuple) else None
        case PathSpec() | StackSpec() | RepeatSpec() | SwapSpec() | JointSpec():
            return f"what a {space.kind} space chooses has no slopes"
        case _:
            assert_never(space)


def _without_scores(run: RunSpec, table: ItemTable) -> str | None:
    """Why items' scores do not say which way is better."""
    if run.fitness.estimator != EstimatorSpec():
        return "the fitness names an estimator, by which searches compare candidates"
    for label, objective in run.fitness.objectives.items():
        for key in run.fitness.keys(label):
            task = table.tasks[key]
            if not task.search.golds:
                return f"{label} has no scores"
            own = "max" if task.metrics[task.metric(objective.metric) or ""] else "min"
            if objective.direction not in (None, own):
                return f"{label} is to get worse"
    return None


def _without_descent(run: RunSpec, parents: Parents, table: ItemTable) -> str | None:
    """What there is too little of to learn from."""
    spec = GradientSpec()
    try:
        judged = held_estimator(run, spec, parents, table)
    except SpecError:
        return "too few search items to learn from"
    vectors, each = spec.vectors(run.fitness), judged.drawn(table)
    units = units_of(run, each, len(fixed_recipes(parents)) + len(points_of(vectors)))
    fewest = min(len(task.search.ids) - judged.drawn_of(task) for task in table.tasks.values())
    course = course_for(units, each * vectors, vectors, fewest, rate=1.0, batch=None)
    return None if course is not None else "the budget is too small to learn"


def _fits_model(run: RunSpec, genes: Sequence[Gene], table: ItemTable) -> bool:
    """Whether a model of all items' scores over the genes has enough to go by."""
    if len(genes) > FEW or not _mostly_real(genes) or _without_scores(run, table) is not None:
        return False
    if {label for label in run.fitness.objectives if run.fitness.keys(label)} != with_loss(run.fitness, table):
        return False
    items = items_with_scores(run, table, len(genes)) * len(table.tasks)
    return units_of(run, items, 0) >= EACH * len(genes) * items
