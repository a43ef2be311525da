"""The preflight: what a search will do, cost and need, measured on one candidate before hours are spent."""

import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evomerge.checkpoint import ParentFiles
from evomerge.evaluate import Evaluator
from evomerge.fitness import POOLS, ItemTable, PoolName, Split
from evomerge.optimize import RECOMMENDED
from evomerge.results import FINALISTS, MOST_FINALISTS
from evomerge.space import Gene, SearchSpace
from evomerge.spec import Budget, RunSpec
from evomerge.trial import Draw
from evomerge.values import Genome, Value

PROBE = 0.4321
"""Every gene of the candidate that is measured: nothing at an edge, so that nothing is saved."""


class ParentPlan(Value):
    """A parent as it was found."""

    name: str
    path: str
    digest: str
    parameters: int
    dtype: str


class TaskPlan(Value):
    """A task as it will be used: its split, items of each pool, and the tokens of its search items."""

    name: str
    split: Split | None
    items: dict[str, int]
    tokens: int
    metrics: tuple[str, ...]

    @property
    def counted(self) -> str:
        """How many items there are of each kind, in words."""
        *most, last = [f"{count} {pool}" for pool, count in self.items.items()]
        return f"{', '.join(most)} and {last} items" + (f" of its {self.split} split" if self.split else "")


class Plan(Value):
    """Everything that `evomerge plan` says; seconds are wall-clock, those to confirm at most; bytes are bytes."""

    parents: tuple[ParentPlan, ...]
    layers: int
    genes: tuple[Gene, ...]
    optimizer: str
    seeds: int
    outside: tuple[str, ...]
    tasks: tuple[TaskPlan, ...]
    device: str
    placement: str
    compiled: bool
    merge_seconds: float
    score_seconds: float
    confirm_seconds: float
    search_seconds: float
    memory: int
    run_bytes: int
    export_bytes: int
    free_bytes: int
    notes: tuple[str, ...]


def make_plan(
    run: RunSpec,
    evaluator: Evaluator,
    space: SearchSpace,
    *,
    seeds: Sequence[str | None],
    outside: Sequence[str],
    where: Path,
) -> Plan:
    """Measure one candidate and add up what the run will take.

    `seeds` are the points of the prior design, by name where they are fixed recipes; `outside` are fixed recipes that
    the space does not hold; `where` is the folder whose disk the run will fill.
    """
    files, table = evaluator.live.files, evaluator.scorer.table
    merge, score = _measure(evaluator, space)
    finalists = FINALISTS + RECOMMENDED if len(run.fitness.objectives) == 1 else MOST_FINALISTS
    confirmed = finalists + sum(name is not None for name in (*seeds, *outside))
    evaluations = _evaluations(run.budget, evaluator, merge + score) + len(outside)
    return Plan(
        parents=_parents(files),
        layers=files.parents.layers,
        genes=space.genes,
        optimizer=run.optimizer.kind if run.optimizer is not None else "",
        seeds=len(seeds),
        outside=tuple(outside),
        tasks=_tasks(table),
        device=str(evaluator.live.device),
        placement=f"{evaluator.live.placement.where} ({evaluator.live.placement.reason})",
        compiled=evaluator.live.merger.compiled,
        merge_seconds=merge,
        score_seconds=score,
        confirm_seconds=score * (_share(table, "confirm") * confirmed + _share(table, "report") * (confirmed + 1)),
        search_seconds=evaluations * (merge + score),
        memory=_peak_memory(),
        run_bytes=evaluations * _bytes_of_a_candidate(table, len(space.genes)),
        export_bytes=files.size(),
        free_bytes=shutil.disk_usage(where).free,
        notes=(*table.caveats(), *evaluator.notes),
    )


def _measure(evaluator: Evaluator, space: SearchSpace) -> tuple[float, float]:
    """Seconds to merge and to score a candidate, after one that warms everything up."""
    times = (0.0, 0.0)
    for value in (PROBE, 1 - PROBE):
        genome: Genome = (value,) * len(space.genes)
        started = time.perf_counter()
        evaluator.live.load(space.decode(genome))
        merged = time.perf_counter()
        evaluator.scorer.marks(Draw(pool="search"))
        times = (merged - started, time.perf_counter() - merged)
    return times


def _share(table: ItemTable, pool: PoolName) -> float:
    """How many times the search items the items of a pool are."""
    return sum(table.items_of(pool).values()) / sum(table.items_of("search").values())


def _evaluations(budget: Budget, evaluator: Evaluator, seconds: float) -> int:
    pool = sum(len(task.search.ids) for task in evaluator.scorer.table.tasks.values())
    limits = [
        budget.evaluations,
        budget.item_evaluations // pool if budget.item_evaluations is not None else None,
        int(budget.seconds / max(seconds, 1e-9)) if budget.seconds is not None else None,
    ]
    return min((limit for limit in limits if limit is not None), default=0)


def _parents(files: ParentFiles) -> tuple[ParentPlan, ...]:
    return tuple(
        ParentPlan(
            name=name,
            path=folder.hub or folder.path,
            digest=folder.digest or "",
            parameters=files.anatomy.parameters,
            dtype=files.checkpoints[name].main_dtype,
        )
        for name, folder in files.parents.models.items()
    )


def _tasks(table: ItemTable) -> tuple[TaskPlan, ...]:
    return tuple(
        TaskPlan(
            name=name,
            split=task.split,
            items={pool: len(task.pool(pool).ids) for pool in POOLS if task.pool(pool).ids},
            tokens=sum(task.search.costs),
            metrics=tuple(task.metrics),
        )
        for name, task in table.tasks.items()
    )


def _bytes_of_a_candidate(table: ItemTable, genes: int) -> int:
    """Its marks as 64-bit floats, its genome in digits, and what else the journal says of it."""
    return 8 * sum(len(task.metrics) * len(task.search.ids) for task in table.tasks.values()) + 40 * genes + 1000


def _peak_memory() -> int:
    """Bytes this process has held at most, mapped parents that were read included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
