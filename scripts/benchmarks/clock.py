"""Searches by a simulated clock: how busy many workers are, and what that is worth, in steady state and by generations.

Everything is real but models and time. Scoring a model takes a log-normal time, and one in twenty takes six times as
long. What there is to find is planted: a smooth bowl over the genes, with noise of its own for every model; or
two bowls, and the front between them.
"""

import bisect
import heapq
import itertools
import math
import statistics
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from measure import table
from numpy.typing import NDArray
from simulated import GROUPS, Floats, Plan, begin, go_on, task_items

from evomerge.events import Incident
from evomerge.execute import Evaluate
from evomerge.fitness import EstimatorSpec
from evomerge.items import TaskItems
from evomerge.results import Results, hypervolume
from evomerge.spec import Budget, CmaSpec, Mode, Nsga2Spec
from evomerge.trial import Evaluation, Work
from evomerge.values import Genome

Kind: TypeAlias = Literal["cma", "nsga2"]
KINDS: tuple[Kind, ...] = ("cma", "nsga2")
MODES: tuple[Mode, ...] = ("generation", "steady")
SPREAD = 0.35
"""Standard deviation of the logarithm of a duration."""
STRAGGLERS, SLOWER = 0.05, 6.0
STEEPEST = 10.0
"""How much more the last gene matters than the first."""
NOISE = 0.01
"""Standard deviation of what a model gets on average, from what it is worth."""
GOOD = 0.003
"""A loss that is good enough for one objective; the even merge, where searches begin, has about .03."""
ITEMS = 16
EVERYTHING = EstimatorSpec(kind="mean", items="all")


@dataclass(frozen=True)
class Bowl:
    """What a merge gets: one, less its weighted squared distance from a planted genome, and noise."""

    goal: Genome

    def loss(self, genome: Genome | Floats) -> float:
        """How much worse it is than the best there is."""
        weights = np.geomspace(1, STEEPEST, len(self.goal))
        return float(np.average((np.asarray(genome) - np.asarray(self.goal)) ** 2, weights=weights))

    def marks(self, genome: Genome) -> Floats:
        """The mark of every item (items,), the same whenever the genome is scored."""
        rng = np.random.default_rng(zlib.crc32(np.asarray(genome).tobytes()))
        return np.asarray(1 - self.loss(genome) + rng.normal(0, NOISE * ITEMS**0.5, 2 * ITEMS))

    def scores_of(self, genome: Genome) -> Floats:
        """Log-probabilities of the one token of an answer (items, 1)."""
        return self.marks(genome)[:, None]

    @cached_property
    def pools(self) -> Mapping[str, NDArray[np.int64]]:
        """Places of the items of each pool."""
        return {"search": np.arange(ITEMS), "confirm": np.arange(ITEMS, 2 * ITEMS)}

    def items(self) -> TaskItems:
        """The pools as a run knows them."""
        return task_items(self.pools)


def make_bowls(kind: Kind, seed: int) -> dict[str, Bowl]:
    """One for CMA-ES, two for NSGA-II, whose goals are not near an edge."""
    goals = np.random.default_rng((seed, 3)).uniform(0.2, 0.8, (1 if kind == "cma" else 2, GROUPS))
    return {f"task {place}": Bowl(tuple(map(float, goal))) for place, goal in enumerate(goals)}


def first_good(bowls: Sequence[Bowl], genomes: Sequence[Genome], share: float) -> int | None:
    """How many of the genomes, in order, it takes to be good enough; None if all of them are not."""
    if len(bowls) == 1:
        good = (place for place, genome in enumerate(genomes, start=1) if bowls[0].loss(genome) <= GOOD)
        return next(good, None)
    one, other = (np.asarray(bowl.goal) for bowl in bowls)
    between = [[-bowl.loss(one + step * (other - one)) for bowl in bowls] for step in np.linspace(0, 1, 200)]
    worst = np.min(between, axis=0)
    most = hypervolume(between, worst)
    points = [[-bowl.loss(genome) for bowl in bowls] for genome in genomes]
    count = bisect.bisect_left(
        range(1, len(points) + 1), share, key=lambda count: hypervolume(points[:count], worst) / most
    )
    return count + 1 if count < len(points) else None


@dataclass(frozen=True)
class Span:
    """When a work was being done."""

    work: Work
    start: float
    end: float


class ClockExecutor:
    """Workers in a time of their own, which goes on to the next result whenever one is waited for."""

    def __init__(self, evaluate: Evaluate, workers: int, seed: int) -> None:
        self._evaluate = evaluate
        self._workers = workers
        self._seed = seed
        self._now = 0.0
        self._running: list[tuple[float, int, Work]] = []
        self.spans: list[Span] = []

    @property
    def free(self) -> int:
        """Workers with nothing to do."""
        return self._workers - len(self._running)

    def submit(self, work: Work) -> None:
        """Have a work begin now; how long it takes depends on its number alone."""
        rng = np.random.default_rng((self._seed, work.id))
        duration = float(np.exp(SPREAD * rng.standard_normal())) * (SLOWER if rng.random() < STRAGGLERS else 1)
        self.spans.append(Span(work, self._now, self._now + duration))
        heapq.heappush(self._running, (self._now + duration, work.id, work))

    def wait(self, timeout: float | None) -> list[Evaluation | Incident]:  # noqa: ARG002  Time is not real.
        """The next result, if there is one to come."""
        if not self._running:
            return []
        self._now, _, work = heapq.heappop(self._running)
        return [self._evaluate(work)]

    def close(self) -> None:
        """Forget what is running."""
        self._running.clear()


@dataclass(frozen=True)
class Pool:
    """So many workers, and a search that is large enough for them.

    `share` is how much of the hypervolume that there is for two objectives is good enough.
    """

    workers: int
    population: int
    evaluations: int
    share: float = 0.5


POOLS = (Pool(8, 16, 600), Pool(64, 128, 3000, share=0.7))


@dataclass(frozen=True)
class Course:
    """How a search went: shares of the workers' time that they worked, and what it took until something was good.

    `busy` is from the first to the last search result; `supplied` ends with the last candidate that was handed out,
    after which there is nothing to do but wait for what is in flight. What was never good took infinitely long.
    """

    busy: float
    supplied: float
    evaluations: float
    time: float


def course(kind: Kind, mode: Mode, pool: Pool, seed: int) -> Course:
    """One search by the clock."""
    bowls, executors = make_bowls(kind, seed), list[ClockExecutor]()

    def executor(evaluate: Evaluate) -> ClockExecutor:
        executors.append(ClockExecutor(evaluate, pool.workers, seed))
        return executors[-1]

    spec = CmaSpec if kind == "cma" else Nsga2Spec
    optimizer = spec(population=pool.population, mode=mode)
    plan = Plan(EVERYTHING, Budget(evaluations=pool.evaluations), seed, optimizer)
    with tempfile.TemporaryDirectory() as temporary:
        found = go_on(bowls, begin(bowls, plan, Path(temporary) / "run"), executor)
    return _summed_up(found, executors[0].spans, list(bowls.values()), pool)


def _summed_up(found: Results, spans: Sequence[Span], bowls: Sequence[Bowl], pool: Pool) -> Course:
    asked = found.state.candidates
    searched = [span for span in spans if asked[span.work.number].origin in ("prior", "search")]
    searched = sorted((s for s in searched if s.work.draw.pool == "search"), key=lambda span: span.end)
    first, last = searched[0].end, searched[-1].end
    good = first_good(bowls, [asked[span.work.number].genome or () for span in searched], pool.share)
    return Course(
        busy=_busy(spans, first, last, pool.workers),
        supplied=_busy(spans, first, max(span.start for span in searched), pool.workers),
        evaluations=math.inf if good is None else good,
        time=math.inf if good is None else searched[good - 1].end,
    )


def _busy(spans: Sequence[Span], first: float, last: float, workers: int) -> float:
    work = sum(max(0.0, min(span.end, last) - max(span.start, first)) for span in spans)
    return work / (workers * (last - first))


def medians(found: Sequence[Course]) -> Course:
    """Of each figure by itself."""
    return Course(
        *(
            statistics.median(getattr(each, name) for each in found)
            for name in ("busy", "supplied", "evaluations", "time")
        )
    )


def bench_clock(seeds: int = 11) -> None:
    """Both optimisers, both ways, with 8 and with 64 workers."""
    head = ("optimiser", "mode", "busy", "until the last is handed out", "evaluations to target", "time to target")
    for pool in POOLS:
        rows: list[Sequence[object]] = [head]
        for kind, mode in itertools.product(KINDS, MODES):
            found = medians([course(kind, mode, pool, seed) for seed in range(seeds)])
            rows.append((kind, mode, found.busy, found.supplied, found.evaluations, found.time))
        title = f"{pool.workers} workers, population {pool.population}, {pool.evaluations} evaluations"
        table(f"clock: {title}, medians of {seeds} seeds", rows)
