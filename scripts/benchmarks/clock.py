"""Searches by a simulated clock: how busy many workers are, and what that is worth, in steady state and by generations.

Everything is real but models and time. Scoring a model takes a log-normal time, and one in twenty takes six times as
long. What there is to find is planted: a smooth bowl over the genes, with noise of its own for every model.
"""

import heapq
import statistics
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from measure import table
from numpy.typing import NDArray
from simulated import GROUPS, Floats, Plan, begin, go_on, task_items

from evomerge.events import Incident
from evomerge.execute import Evaluate
from evomerge.fitness import EstimatorSpec
from evomerge.items import TaskItems
from evomerge.results import Results
from evomerge.spec import Budget, CmaSpec, Mode, Nsga2Spec
from evomerge.trial import Evaluation, Work
from evomerge.values import Genome

SPREAD = 0.35
"""Standard deviation of the logarithm of a duration."""
STRAGGLERS, SLOWER = 0.05, 6.0
STEEPEST = 10.0
"""How much more the last gene matters than the first."""
NOISE = 0.02
"""Standard deviation of what a model gets on average, from what it is worth."""
GOOD = 0.002
"""A loss that is good enough; the even merge, where searches begin, has about .03."""
ITEMS = 16
EVERYTHING = EstimatorSpec(kind="mean", items="all")


@dataclass(frozen=True)
class Bowl:
    """What a merge gets: one, less its weighted squared distance from a planted genome, and noise."""

    goal: Genome

    def loss(self, genome: Genome) -> float:
        """How much worse it is than the best there is."""
        weights = np.geomspace(1, STEEPEST, len(self.goal))
        return float(np.average((np.asarray(genome) - np.asarray(self.goal)) ** 2, weights=weights))

    def marks(self, genome: Genome) -> Floats:
        """The mark of every item (items,), the same whenever the genome is scored."""
        rng = np.random.default_rng(zlib.crc32(np.asarray(genome).tobytes()))
        return np.asarray(1 - self.loss(genome) + rng.normal(0, NOISE * ITEMS**0.5, 2 * ITEMS))

    @cached_property
    def pools(self) -> Mapping[str, NDArray[np.int64]]:
        """Places of the items of each pool."""
        return {"search": np.arange(ITEMS), "confirm": np.arange(ITEMS, 2 * ITEMS)}

    def items(self) -> TaskItems:
        """The pools as a run knows them."""
        return task_items(self.pools)


def make_bowl(seed: int) -> Bowl:
    """One whose goal is not near an edge."""
    return Bowl(tuple(map(float, np.random.default_rng((seed, 3)).uniform(0.2, 0.8, GROUPS))))


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
    """So many workers, and a search that is large enough for them."""

    workers: int
    population: int
    evaluations: int


POOLS = (Pool(8, 16, 600), Pool(64, 128, 3000))


@dataclass(frozen=True)
class Course:
    """How a search went: shares of the workers' time that they worked, and what it took to a good candidate.

    `busy` is from the first to the last search result, `filled` to the last candidate that was handed out: in between
    there is nothing left to do but wait.
    """

    busy: float
    filled: float
    evaluations: int
    time: float


def course(kind: Literal["cma", "nsga2"], mode: Mode, pool: Pool, seed: int) -> Course:
    """One search by the clock."""
    bowl, spans = make_bowl(seed), list[Span]()

    def executor(evaluate: Evaluate) -> ClockExecutor:
        made = ClockExecutor(evaluate, pool.workers, seed)
        made.spans = spans
        return made

    spec = CmaSpec if kind == "cma" else Nsga2Spec
    optimizer = spec(population=pool.population, mode=mode)
    plan = Plan(EVERYTHING, Budget(evaluations=pool.evaluations), seed, optimizer)
    with tempfile.TemporaryDirectory() as temporary:
        worlds = {"task": bowl}
        found = go_on(worlds, begin(worlds, plan, Path(temporary) / "run"), executor)
    return _summed_up(found, spans, bowl, pool.workers)


def _summed_up(found: Results, spans: Sequence[Span], bowl: Bowl, workers: int) -> Course:
    asked = found.state.candidates
    searched = [span for span in spans if asked[span.work.number].origin in ("prior", "search")]
    searched = sorted((s for s in searched if s.work.draw.pool == "search"), key=lambda span: span.end)
    first, last = searched[0].end, searched[-1].end
    losses = [bowl.loss(asked[span.work.number].genome or ()) for span in searched]
    hit = next((place for place, loss in enumerate(losses) if loss <= GOOD), len(losses) - 1)
    return Course(
        busy=_busy(spans, first, last, workers),
        filled=_busy(spans, first, max(span.start for span in searched), workers),
        evaluations=hit + 1,
        time=searched[hit].end,
    )


def _busy(spans: Sequence[Span], first: float, last: float, workers: int) -> float:
    work = sum(max(0.0, min(span.end, last) - max(span.start, first)) for span in spans)
    return work / (workers * (last - first))


def bench_clock(seeds: int = 11) -> None:
    """Both optimisers, both ways, with 8 and with 64 workers."""
    head = ("optimiser", "mode", "workers", "busy", "until the last is out", "evaluations to target", "time to target")
    for pool in POOLS:
        rows: list[Sequence[object]] = [head]
        for kind in ("cma", "nsga2"):
            for mode in ("generation", "steady"):
                found = [course(kind, mode, pool, seed) for seed in range(seeds)]
                middle = [
                    statistics.median(getattr(each, name) for each in found)
                    for name in ("busy", "filled", "evaluations", "time")
                ]
                rows.append((kind, mode, pool.workers, *middle))
        table(f"clock: {pool.evaluations} evaluations, population {pool.population}, medians of {seeds} seeds", rows)
