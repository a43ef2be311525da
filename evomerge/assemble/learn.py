"""What coefficients are learned of a run: which tensors, how finely, on which items."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np

from evomerge.assemble.references import imitated
from evomerge.errors import SpecError
from evomerge.fitness import EstimatorSpec
from evomerge.items import ItemTable, TextItems
from evomerge.learn.course import held_for
from evomerge.learn.layout import Block, Layout
from evomerge.learn.tradeoff import points_of
from evomerge.learning import Ground, Kept, LearningPlan, learning_plan
from evomerge.recipe import Blend, Grain, Parents, Recipe, count_of
from evomerge.space import UNIFORM, BlendSpec, JointSpec, PathSpec, RepeatSpec, StackSpec, SwapSpec, bind, fixed_recipes
from evomerge.space.blend import BlendSpace
from evomerge.space.spec import slots_of
from evomerge.space.tensor import TensorSpace
from evomerge.spec import GradientSpec, RunSpec, gradient_of
from evomerge.trial import Draw

if TYPE_CHECKING:
    from evomerge.checkpoint import Anatomy, Place
    from evomerge.evaluate import Evaluator

HELD = 6
"""One search item in so many is held out of learning."""
MOST_HELD = 96
FEWEST_HELD = 8
ENOUGH = 128
"""Items to learn from, of each task, with which columns are worth more than tensors."""


def held_estimator(run: RunSpec, spec: GradientSpec, parents: Parents, table: ItemTable) -> EstimatorSpec:
    """How fixed recipes and what is learned are judged in the search: by the plain mean over the items held out.

    Raises:
        SpecError: that leaves no items to learn from.
    """
    given, fewest = run.fitness.estimator, min(len(task.search.ids) for task in table.tasks.values())
    if given != EstimatorSpec() and given != _mean_of(given.items):
        raise SpecError("fitness.estimator: what is learned is judged on optimizer.held items; leave the estimator out")
    held = given.items if given != EstimatorSpec() else spec.held or _held(run, spec, parents, table)
    if held == "all" or held >= fewest:
        raise SpecError(
            f"optimizer.held: {held} of {fewest} search items are held out, which leaves none to learn from; give"
            " fewer, or more items.search"
        )
    return _mean_of(held)


def _mean_of(items: int | Literal["all"]) -> EstimatorSpec:
    return EstimatorSpec(kind="mean", items=items, design="random", rotate=False, refresh=0.0)


def _held(run: RunSpec, spec: GradientSpec, parents: Parents, table: ItemTable) -> int:
    """A share of the items, as far as a share of the budget goes."""
    most = min(MOST_HELD, min(len(task.search.ids) for task in table.tasks.values()) // HELD)
    vectors = spec.vectors(run.fitness)
    if run.budget.item_evaluations is not None:
        models = len(fixed_recipes(parents)) + len(points_of(vectors))
        most = min(most, held_for(run.budget.item_evaluations, len(table.tasks), models, vectors))
    return max(FEWEST_HELD, most)


def units_of(run: RunSpec, each: int, models: int) -> int:
    """Forward passes of one item that a budget allows, if candidates are put to `each` items, beside so many models."""
    limits = (run.items_left, run.budget.evaluations and run.budget.evaluations * each)
    return min((limit for limit in limits if limit is not None), default=sys.maxsize) - models * each


def with_learning(run: RunSpec, optimizer: GradientSpec, parents: Parents, table: ItemTable | None) -> RunSpec:
    """The run with what learning needs written out: how it is judged, and how finely it learns.

    Raises:
        SpecError: its space has nothing to learn, or there are too few items.
    """
    space = learnable(run, parents)
    imitated(run, table)
    if table is None:
        return run
    silent = [name for name, task in table.tasks.items() if not task.search.golds]
    if silent:
        raise SpecError(f"optimizer: task {silent[0]!r} gives no scores to learn from; take cma or nsga2")
    judged = held_estimator(run, optimizer, parents, table)
    fewest = min(len(task.search.ids) - judged.drawn_of(task) for task in table.tasks.values())
    spec = space.spec.model_copy(update={"grain": "column" if fewest >= ENOUGH else "tensor"})
    changes = {"fitness": run.fitness.model_copy(update={"estimator": judged})}
    return run.model_copy(update=changes | ({"space": spec} if space.spec.grain == "auto" else {}))


def learnable(run: RunSpec, parents: Parents) -> BlendSpace | TensorSpace:
    """The space whose coefficients are learned.

    Raises:
        SpecError: they have no slopes.
    """
    match run.space:
        case BlendSpec(groups="tensor"):
            return TensorSpace(run.space, parents)
        case BlendSpec():
            return BlendSpace(run.space, parents)
        case PathSpec() | StackSpec() | RepeatSpec() | SwapSpec() | JointSpec():
            raise SpecError(
                f"optimizer: a {run.space.kind} space has no coefficients to be learned by their slopes; take cma or"
                " nsga2, or a blend space"
            )
        case _:
            assert_never(run.space)


def ground_of(run: RunSpec, parents: Parents, anatomy: "Anatomy", held: Draw, text: TextItems | None = None) -> Ground:
    """What a run learns; `text` is what it must keep, if it has a guard.

    Raises:
        SpecError: its space has no coefficients with slopes.
    """
    spec = gradient_of(run.chosen)
    assert spec is not None, "it learns"
    space = learnable(run, parents)
    frame = space.frame((0.5,) * len(space.genes))
    objectives = {label: run.fitness.keys(label) for label in run.fitness.objectives if run.fitness.keys(label)}
    return Ground(
        spec=spec,
        layout=_layout(space, frame, anatomy),
        frame=space.frame,
        weights=lambda recipe: {name: blend.coefficients() for name, _, blend in _learned(recipe, space, anatomy)},
        bounds=space.spec.weights,
        objectives=objectives,
        held=held,
        seed=run.seed,
        imitated=imitated(run),
        alone=None if spec.front else _shares(run, list(objectives)),
        kept=_kept(run, parents, text, max(map(len, (held.places or {}).values()), default=0)),
    )


def _shares(run: RunSpec, labels: Sequence[str]) -> tuple[float, ...]:
    """The weights of objectives, as shares."""
    weights = [run.fitness.objectives[label].weight for label in labels]
    return tuple(weight / sum(weights) for weight in weights)


def guarded(run: RunSpec, parents: Parents) -> Recipe | None:
    """The fixed recipe that a run's guard compares with; None without a guard.

    Raises:
        SpecError: there is none of its name.
    """
    if run.guard is None:
        return None
    known = fixed_recipes(parents)
    of = run.guard.of or (UNIFORM if UNIFORM in known else parents.names[0])
    if of not in known:
        raise SpecError(f"guard.of: {of!r} is no fixed recipe of this run; give {', '.join(known)}")
    return known[of]


def _kept(run: RunSpec, parents: Parents, text: TextItems | None, held: int) -> Kept | None:
    """What learning must keep, judged by as many pieces of text as items of a task are held out, but for a few."""
    of = guarded(run, parents)
    if of is None or text is None or run.guard is None:
        return None
    count = len(text.held)  # They come first.
    pool = range(count, len(text.search))
    return Kept(limit=math.log1p(run.guard.share), of=of, pool=pool, held=range(min(count, max(FEWEST_HELD, held))))


def planned_learning(run: RunSpec, evaluator: "Evaluator", seeds: int) -> LearningPlan:
    """What learning will take, when so many fixed recipes of the space have been judged."""
    parents, table, estimator = evaluator.parents, evaluator.table, run.fitness.estimator
    held = {task: tuple(range(estimator.drawn_of(items))) for task, items in table.tasks.items()}
    ground = ground_of(run, parents, evaluator.live.files.anatomy, Draw(pool="search", places=held), table.text)
    units = units_of(run, estimator.drawn(table), seeds)
    units -= sum(len(names) * len(ground.pools(table)[task]) for task, names in ground.imitated.items())
    return learning_plan(ground, units, table, ground.frame((0.5,) * len(bind(run.space, parents).genes)), evaluator)


def _learned(
    recipe: Recipe, space: BlendSpace | TensorSpace, anatomy: "Anatomy"
) -> Iterator[tuple[str, "Place", Blend]]:
    """The tensors of which something is learned, their places, and how a recipe blends them."""
    from evomerge.checkpoint import Shares

    shares, operator = Shares(recipe, anatomy), space.spec.operator
    voices = 2 if operator.pair else len(space.parents.experts)
    places = dict(shares.places())
    # What was learned is kept as one vector: its order must never change. Names of a deeper model come last.
    known = [name for name in anatomy.places if name in places]
    for name in dict.fromkeys((*known, *places)):
        place = places[name]
        blend = shares.mix(place).blend
        if blend.operator.kind == operator.kind and len(blend.sources) == voices:
            yield name, place, blend


def _layout(space: BlendSpace | TensorSpace, frame: Recipe, anatomy: "Anatomy") -> Layout:
    from evomerge.checkpoint import Shares

    grain = space.spec.grain
    assert grain != "auto", "resolved when the run was opened"
    finest: Grain = "tensor" if grain is None or space.spec.operator.pair else grain  # A slerp has one t a tensor.
    learned, shares = list(_learned(frame, space, anatomy)), Shares(frame, anatomy)
    blocks = [
        Block(name, len(blend.coefficients()), count_of(finest, shares.shape(place))) for name, place, blend in learned
    ]
    if not blocks:
        raise SpecError("space: no tensor has coefficients to learn; let outer be own, or take another operator")
    tied = grain is None and space.spec.groups != "tensor"
    places = [place for _, place, _ in learned]
    return Layout(grain or "tensor", blocks, _ties(space.spec, space.parents, blocks, places) if tied else None)


def _ties(spec: BlendSpec, parents: Parents, blocks: Sequence[Block], places: Sequence["Place"]) -> Any:
    """Coefficients that share a gene: those of one source in all tensors of a slot."""
    slots, found = slots_of(spec, parents), []
    for block, place in zip(blocks, places, strict=True):
        slot = next(i for i, each in enumerate(slots) if each.has(place.layer, place.part))
        found += [slot * block.sources + source for source in range(block.sources)]
    return np.unique(np.array(found), return_inverse=True)[1]
