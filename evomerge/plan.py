"""The preflight: what a search will do, cost and need, measured on one candidate before hours are spent."""

import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from evomerge.checkpoint import ParentFiles
from evomerge.evaluate import Evaluator
from evomerge.fitness import EstimatorSpec
from evomerge.items import POOLS, Cost, ItemTable, Split
from evomerge.learn.tradeoff import points_of
from evomerge.learning import LearningPlan
from evomerge.optimize import RECOMMENDED
from evomerge.recipe import Parent, Recipe
from evomerge.results import FINALISTS, MOST_FINALISTS
from evomerge.space import Gene, SearchSpace, fixed_recipes, names_for, unchanged
from evomerge.spec import RunSpec, gradient_of
from evomerge.store import Shape, expected_bytes
from evomerge.trial import Draw, Evaluation, Failure, Seconds, Work
from evomerge.values import Genome, Value

PROBE = 0.4321
"""Every gene of the candidate that is measured: nothing at an edge, so that nothing is saved."""

FEW = 2
"""Items of each task that parents are tried on; the search begins with all of them."""


def probe(space: SearchSpace, value: float = PROBE) -> Genome:
    """A candidate to try things out on: all genes at this share of their ranges, but scales almost at one."""

    def near_one(gene: Gene) -> float:
        return gene.unit(0.999 if gene.low <= 0.999 else min(1.001, gene.high))

    return tuple(near_one(gene) if gene.name.endswith(".scale") else value for gene in space.genes)


class ParentPlan(Value):
    """A parent as it was found; `ranks` are those of an adapter, and its `parameters` the adapter's own."""

    name: str
    path: str
    digest: str
    parameters: int
    dtype: str
    ranks: tuple[int, ...] = ()


class TaskPlan(Value):
    """A task as it will be used: its split, items of each pool, how many of its search items a candidate is put to.

    `tokens` are those of all search items, 0 if nobody counted; `code` is what code of its own it runs.
    """

    name: str
    split: Split | None
    items: dict[str, int]
    drawn: int
    tokens: int
    metrics: tuple[str, ...]
    code: tuple[str, ...] = ()

    @property
    def counted(self) -> str:
        """How many items there are of each kind, in words."""
        *most, last = [f"{count} {pool}" for pool, count in self.items.items()]
        return f"{', '.join(most)} and {last} items" + (f" of its {self.split} split" if self.split else "")

    @property
    def drawn_tokens(self) -> int:
        """Tokens of as many search items as a candidate is put to, at their mean."""
        return round(self.tokens * self.drawn / self.items["search"])


class Plan(Value):
    """Everything that `evomerge plan` says; seconds are wall-clock, those to confirm at most; bytes are bytes.

    `seeds` are the points of the prior design, `fixed` the fixed recipes, parents included, all of which are confirmed.
    `score_seconds` are those of one draw, `parents_seconds` those of all parents on all search items. `costs` says of
    every objective that is a cost which one it is, and what it is of an unchanged parent.
    `why` says why it is this optimiser, where the run file leaves that open.
    """

    parents: tuple[ParentPlan, ...]
    layers: int
    genes: tuple[Gene, ...]
    optimizer: str
    seeds: int
    fixed: int
    outside: tuple[str, ...]
    tasks: tuple[TaskPlan, ...]
    costs: dict[str, tuple[Cost, float]]
    estimator: EstimatorSpec
    device: str
    placement: str
    compiled: bool
    merge_seconds: float
    score_seconds: float
    parents_seconds: float
    confirm_seconds: float
    search_seconds: float
    memory: int
    run_bytes: int
    export_bytes: int
    free_bytes: int
    notes: tuple[str, ...]
    learning: LearningPlan | None = None
    why: str | None = None


def make_plan(
    run: RunSpec,
    evaluator: Evaluator,
    space: SearchSpace,
    *,
    seeds: Sequence[str | None],
    outside: Sequence[str],
    where: Path,
) -> Plan:
    """Measure one candidate and add up what the run will take, of the disk that `where` is on.

    `seeds` are the points of the prior design, by name where they are fixed recipes; those that the space does not
    hold are `outside`.
    """
    files, table = evaluator.live.files, evaluator.table
    sizes = _sizes(run.fitness.estimator, table)
    measured = _measure(evaluator, space, sizes)
    costs = _costs(run, evaluator, measured.seconds, sizes, seeds=seeds, outside=outside)
    return Plan(
        parents=_parents(files),
        layers=files.parents.layers,
        genes=space.genes,
        optimizer=run.optimizer.kind,
        seeds=len(seeds),
        fixed=_fixed(seeds, outside),
        outside=tuple(outside),
        tasks=_tasks(run.fitness.estimator, table),
        costs={label: (cost, table.costs[cost]) for label, cost in run.fitness.costs().items()},
        estimator=run.fitness.estimator,
        device=str(evaluator.live.device),
        placement=f"{evaluator.live.placement.where} ({evaluator.live.placement.reason})",
        compiled=evaluator.live.merger.compiled,
        merge_seconds=costs.merge,
        score_seconds=costs.score,
        parents_seconds=costs.parents,
        confirm_seconds=costs.confirm,
        search_seconds=costs.search,
        memory=_peak_memory(),
        run_bytes=_run_bytes(run, evaluator, space, costs.evaluations, _fixed(seeds, outside), outside),
        export_bytes=files.size(),
        free_bytes=shutil.disk_usage(where).free,
        notes=(*files.remarks(), *table.caveats(), *evaluator.notes, *_doubts(measured)),
    )


@dataclass(frozen=True)
class _Sizes:
    """Search items, over all tasks: in the pool, in a whole draw by task and in all, put to a candidate on average."""

    pool: int
    by_task: dict[str, int]
    drawn: int
    mean: float


def _sizes(spec: EstimatorSpec, table: ItemTable) -> _Sizes:
    pool, drawn = table.count("search"), spec.drawn(table)
    by_task = {name: spec.drawn_of(task) for name, task in table.tasks.items()}
    mean = sum(_climbed(spec, count) for count in by_task.values())
    again = spec.refresh if spec.rotates and drawn < pool else 0.0
    return _Sizes(pool, by_task, drawn, mean * (1 + again))


class _Costs(NamedTuple):
    """How many evaluations there will be, and seconds: of one candidate's two steps, and of a run's three phases."""

    evaluations: int
    merge: float
    score: float
    parents: float
    search: float
    confirm: float


def _costs(
    run: RunSpec,
    evaluator: Evaluator,
    measured: Seconds,
    sizes: _Sizes,
    *,
    seeds: Sequence[str | None],
    outside: Sequence[str],
) -> _Costs:
    merge, score = measured.merge, measured.score
    item, parents = score / sizes.drawn, len(evaluator.live.files.parents.names)
    each = merge + sizes.mean * item
    first = parents * (merge + sizes.pool * item)
    evaluations = _evaluations(run, sizes, each, parents)
    if (learned := gradient_of(run.chosen)) is not None:  # The rest of its budget goes to slopes.
        evaluations = min(evaluations, len(seeds) + len(points_of(learned.vectors(run.fitness))))
    evaluations += len(outside)
    confirm = item * _held_out(run, evaluator.table, _fixed(seeds, outside))
    return _Costs(evaluations, merge, score, first, first + max(0, evaluations - parents) * each, confirm)


def _fixed(seeds: Sequence[str | None], outside: Sequence[str]) -> int:
    return sum(name is not None for name in (*seeds, *outside))


def _climbed(spec: EstimatorSpec, drawn: int) -> float:
    """How many of a task's drawn items a candidate is put to on average, rung by rung."""
    ends = [*(rung for rung in spec.rungs if rung < drawn), drawn]
    steps = [end - start for start, end in pairwise((0, *ends))]
    return sum(step * spec.keep**rung for rung, step in enumerate(steps))


def _held_out(run: RunSpec, table: ItemTable, fixed: int) -> int:
    """Confirm and report items put to models, at most; `fixed` recipes and parents get all of them."""
    finalists = FINALISTS + RECOMMENDED if len(run.fitness.objectives) == 1 else MOST_FINALISTS
    return table.count("confirm") * (finalists + fixed) + table.count("report") * (fixed + 1)


def _measure(evaluator: Evaluator, space: SearchSpace, sizes: _Sizes) -> Evaluation:
    """A candidate merged and scored on a draw, after parents that warm everything up.

    Raises:
        SpecError, RunError: a parent cannot be scored.
    """
    places = {name: tuple(range(count)) for name, count in sizes.by_task.items()}
    draw = Draw(pool="search", places=None if sizes.drawn == sizes.pool else places)
    few = Draw(pool="search", places={name: row[:FEW] for name, row in places.items()})
    parents = evaluator.parents
    for name in parents.names:
        evaluator.marks(unchanged(parents, name), draw if name == parents.template else few, name)
    evaluator.live.load(space.decode(probe(space, PROBE)))
    return evaluator(Work(id=0, number=0, recipe=space.decode(probe(space, 1 - PROBE)), draw=draw, purpose="search"))


def _doubts(measured: Evaluation) -> list[str]:
    """What a candidate that could not be measured says of the search."""
    if not isinstance(measured.outcome, Failure):
        return []
    return [f"the candidate that was measured has failed, and so may others: {measured.outcome.reason}"]


def _evaluations(run: RunSpec, sizes: _Sizes, seconds: float, parents: int) -> int:
    """How many candidates the budget pays for at this price each; parents cost more items, as they get all."""
    budget, items = run.budget, run.items_left
    limits = [
        budget.evaluations,
        max(0, items - parents * (sizes.pool - sizes.drawn)) // sizes.drawn if items is not None else None,
        int(budget.seconds / max(seconds, 1e-9)) if budget.seconds is not None else None,
        int(budget.accelerator_hours * 3600 / max(seconds, 1e-9)) if budget.accelerator_hours is not None else None,
    ]
    return min((limit for limit in limits if limit is not None), default=0)


def _parents(files: ParentFiles) -> tuple[ParentPlan, ...]:
    return tuple(_parent(name, parent, files) for name, parent in files.parents.models.items())


def _parent(name: str, parent: Parent, files: ParentFiles) -> ParentPlan:
    adapter = files.adapter(name)
    return ParentPlan(
        name=name,
        path=parent.shown(),
        digest=parent.content() or "",
        parameters=files.anatomy.parameters if adapter is None else adapter.parameters,
        dtype=parent.dtype if isinstance(parent, Recipe) else files.accounts[name].dtype,
        ranks=() if adapter is None else adapter.ranks,
    )


def _tasks(spec: EstimatorSpec, table: ItemTable) -> tuple[TaskPlan, ...]:
    return tuple(
        TaskPlan(
            name=name,
            split=task.split,
            items={pool: len(task.pool(pool).ids) for pool in POOLS if task.pool(pool).ids},
            drawn=spec.drawn_of(task),
            tokens=sum(task.search.costs),
            metrics=tuple(task.metrics),
            code=tuple(task.code),
        )
        for name, task in table.tasks.items()
    )


def _run_bytes(
    run: RunSpec, evaluator: Evaluator, space: SearchSpace, evaluations: int, fixed: int, outside: Sequence[str]
) -> int:
    """Bytes of the run; of a front as many points are taken to be confirmed as of one objective."""
    parents = names_for(run.space, evaluator.live.files.parents)
    models = fixed + min(FINALISTS + RECOMMENDED, max(0, evaluations - fixed)), fixed + 1
    beside = [fixed_recipes(parents)[name] for name in outside]
    inside = evaluations - len(outside)
    return expected_bytes(Shape(run, evaluator.table, parents, space.genes, inside, beside, *models))


def _peak_memory() -> int:
    """Bytes this process has held at most, mapped parents that were read included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
