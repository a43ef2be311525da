"""Searches by workers in a time of their own: a scripted executor below the real session and study."""

import heapq
import random
from collections.abc import Sequence
from pathlib import Path

from simulated import Plan, World, begin, make_world, simulator, study

from evomerge.confirm import confirm
from evomerge.events import Extended, Opened, Workers
from evomerge.execute import Evaluate, News
from evomerge.fitness import EstimatorSpec
from evomerge.results import FINALISTS, Results
from evomerge.session import Session
from evomerge.spec import Budget, CmaSpec
from evomerge.store import RunStore
from evomerge.trial import Seconds, Work

BEGAN = 1_000_000.0
"""When the clock of every run begins."""
WORLDS: dict[str, World] = {"task 0": make_world(28, 0, search=40)}
EIGHT_ITEMS = EstimatorSpec(items=8)


class Timed:
    """Workers who take about `each` seconds for a work; time passes while they are waited for.

    How they stand is said as often as a result is, unless there is only one `inline`.
    """

    def __init__(self, evaluate: Evaluate, workers: int, each: float = 10.0, gpus: float = 0.0) -> None:
        self._evaluate = evaluate
        self.workers = workers
        self.each = each
        self._gpus = gpus
        self.began = self.now = BEGAN
        self._running: list[tuple[float, int, float, Work]] = []
        self._used = 0.0
        self.spans: list[tuple[Work, float, float]] = []
        self.news: list[News] = []

    def clock(self) -> float:
        return self.now

    @property
    def free(self) -> int:
        return self.workers - len(self._running)

    def submit(self, work: Work) -> None:
        seconds = self.each * random.Random(work.id).uniform(0.8, 1.2)
        self.spans.append((work, self.now, self.now + seconds))
        heapq.heappush(self._running, (self.now + seconds, work.id, seconds, work))

    def wait(self, timeout: float | None) -> Sequence[News]:
        self.now, _, seconds, work = heapq.heappop(self._running)
        self._used += seconds
        worker = f"worker {work.id % self.workers}"
        done = self._evaluate(work).model_copy(update={"seconds": Seconds(score=seconds), "worker": worker})
        said, self.news = self.news, []
        return [*said, done, *([self.standing()] if self.workers > 1 else [])]

    def standing(self) -> Workers:
        return Workers(
            at=self.now,
            ready=self.workers,
            starting=0,
            busy=len(self._running),
            queued=0,
            held=self.workers * (self.now - self.began),
            used=self._used,
            gpus=self._gpus,
        )

    def close(self) -> None:
        self._running.clear()


def run(budget: Budget, folder: Path, *, population: int = 8, mode: str = "generation") -> RunStore:
    """A new run."""
    optimizer = CmaSpec.model_validate({"population": population, "mode": mode})
    plan = Plan(estimator=EIGHT_ITEMS, budget=budget, seed=1, optimizer=optimizer)
    return begin(WORLDS, plan, folder)


def opened(store: RunStore, workers: int, *, ahead: bool = False, gpus: float = 0.0) -> tuple[Session, Timed]:
    """A session of so many workers; one is inline."""
    executor = Timed(simulator(WORLDS, store), workers, gpus=gpus)
    session = Session(store, executor, ahead=ahead, clock=executor.clock)
    budget, kind = session.state.budget, "inline" if workers == 1 else "ray"
    session.record(Opened(at=executor.now, budget=budget, executor=kind, device="cpu"))
    return session, executor


def extended(session: Session, budget: Budget) -> None:
    """Another budget, from now on."""
    session.record(Extended(at=BEGAN, budget=budget))


def searched(session: Session) -> Results:
    """The whole search, and what is confirmed of it; the store stays open."""
    study(session).run()
    confirm(session, FINALISTS)
    return Results(session.store)


def ends(executor: Timed) -> list[float]:
    """When each work of the search ended, in seconds from the beginning."""
    return [end - BEGAN for work, _, end in executor.spans if work.draw.pool == "search"]
