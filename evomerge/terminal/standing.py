"""Where a search stands, in words for a terminal and in fields for a log."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from evomerge.results import amount, non_dominated, volumes
from evomerge.session import Session
from evomerge.terminal.units import duration
from evomerge.trial import Evaluation, Purpose
from evomerge.visible import visible


def phase_of(purpose: Purpose) -> str:
    """What is said to be going on while works of this purpose are done."""
    match purpose:
        case "baseline":
            return "fixed recipes"
        case "search" | "refresh":
            return "search"
        case "confirm":
            return "confirm"
        case "reference" | "gradient":
            return "learn"
        case _:
            assert_never(purpose)


@dataclass(frozen=True)
class Standing:
    """How far a phase has come, and what has been found; what does not apply is None, 0 or empty.

    `total` is what the budget allows, `best` the best value of each objective, `reused` and `used` are shares, of
    layers and of the workers' time, `rate` is in candidates a second, `left` in seconds.
    """

    done: int
    total: int = 0
    best: Mapping[str, str] = field(default_factory=dict)
    front: int = 0
    hypervolume: float | None = None
    failed: int = 0
    reused: float = 0.0
    workers: int | None = None
    used: float | None = None
    queued: int = 0
    rate: float = 0.0
    left: float | None = None

    def words(self) -> str:
        """For a person who watches."""
        return "  ".join(self._words())

    def _words(self) -> Iterator[str]:
        if self.best:
            yield "best " + ", ".join(f"{label} {value}" for label, value in self.best.items())
        if self.front:
            yield f"front {self.front}"
        if self.hypervolume is not None:
            yield f"hypervolume {self.hypervolume:.3f}"
        if self.failed:
            yield f"{self.failed} failed"
        if self.reused:
            yield f"{self.reused:.0%} of layers reused"
        if self.workers is not None:
            yield f"workers {self.workers}" + (f" {self.used:.0%} used" if self.used is not None else "")
        yield f"{self.rate:.1f}/s" if self.rate >= 1 or not self.rate else f"{1 / self.rate:.1f} s each"
        if self.left is not None:
            yield f"{duration(self.left)} left"

    def fields(self) -> str:
        """For a log, `name=value`; values with spaces in double quotes."""
        best = ", ".join(f"{label} {value}" for label, value in self.best.items())
        known = {
            "done": self.done,
            "of": self.total or None,
            "best": field_text(best, quoted=True) if best else None,
            "front": self.front or None,
            "hypervolume": self.hypervolume,
            "failed": self.failed or None,
            "reused": self.reused or None,
            "workers": self.workers,
            "used": self.used,
            "queued": self.queued if self.workers is not None else None,
            "rate": self.rate,
            "left": None if self.left is None else round(self.left),
        }
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in known.items()}
        return " ".join(f"{name}={value}" for name, value in shown.items() if value is not None)


def field_text(text: str, *, quoted: bool = False) -> str:
    """A text as a value of a log's field: in double quotes if it is not a word."""
    plain = quoted is False and re.fullmatch(r"[\w.:/+-]+", text)
    return text if plain else visible(json.dumps(text, ensure_ascii=False))


class Gauge:
    """Reads where one phase of a session stands, result by result."""

    def __init__(self, session: Session, phase: str, first: Evaluation) -> None:
        self.phase = phase
        self._session = session
        self._points: dict[int, tuple[float, ...]] = {}
        self._failed: set[int] = set()
        self._run, self._reused = 0, 0
        self._done_before = self.counts[0] - 1
        self._started = time.monotonic() - first.seconds.merge - first.seconds.score
        for evaluated in session.state.finished() if phase == "search" else ():
            self._take(evaluated.number)

    def take(self, evaluation: Evaluation) -> None:
        """Take a result in."""
        if self.phase == "search":
            self._take(evaluation.number)
        if (layers := evaluation.layer_evaluations) is not None:
            self._run, self._reused = self._run + layers.run, self._reused + layers.reused

    @property
    def counts(self) -> tuple[int, int]:
        """How many are done, and of how many, 0 if that is not known."""
        state = self._session.state
        if self.phase == "search":
            return len(state.finished()), state.budget.evaluations or 0
        works = [work for work in state.works.values() if phase_of(work.purpose) == self.phase]
        return sum(work.work in state.outcomes for work in works), len(works) if self.phase == "confirm" else 0

    def standing(self) -> Standing:
        """Where things stand."""
        done, total = self.counts
        passed = time.monotonic() - self._started
        rate = (done - self._done_before) / passed if passed > 0 else 0.0
        workers, used, queued = self._workers()
        return Standing(
            done=done,
            total=total,
            best=self._best(),
            front=len(non_dominated(self._vectors))
            if len(self._session.appraiser.grader.fitness.objectives) > 1
            else 0,
            hypervolume=self._hypervolume(),
            failed=len(self._failed),
            reused=self._reused / max(1, self._run + self._reused),
            workers=workers,
            used=used,
            queued=queued,
            rate=rate,
            left=self._left(total - done, rate),
        )

    @property
    def _vectors(self) -> list[tuple[float, ...]]:
        return list(self._points.values())

    def _take(self, number: int) -> None:
        point = self._point(number)
        if point is None:
            self._failed.add(number)
        else:
            self._points[number] = point

    def _point(self, number: int) -> tuple[float, ...] | None:
        """What a candidate is worth by the search's estimate, higher is better; None if nothing is known."""
        grader, values = self._session.appraiser.grader, self._session.appraiser.values(number)
        if values is None:
            return None
        signed = zip(map(grader.sign, values), values.values(), strict=True)
        return tuple(sign * estimate.value for sign, estimate in signed)

    def _best(self) -> dict[str, str]:
        grader = self._session.appraiser.grader
        columns = zip(grader.fitness.objectives, zip(*self._vectors, strict=True), strict=False)
        best = {label: grader.sign(label) * max(column) for label, column in columns}
        return {label: amount(value, exact=label in grader.costs) for label, value in best.items()}

    def _hypervolume(self) -> float | None:
        """From the worst fixed recipe of each objective; costs have no such place before the end."""
        grader, candidates = self._session.appraiser.grader, self._session.state.candidates
        if not self._points or grader.costs or len(grader.fitness.objectives) < 2:
            return None
        named = [self._point(number) for number, asked in candidates.items() if asked.name is not None]
        fixed = [point for point in named if point is not None]
        if not fixed:
            return None
        return volumes(self._vectors, fixed, [False] * len(fixed[0]))["front"]

    def _workers(self) -> tuple[int | None, float | None, int]:
        """How many workers there are, if they come and go, the share of their time that is used, works that wait."""
        processes = self._session.state.processes
        if not processes or (standing := processes[-1].standing) is None:
            return None, None, 0
        held = processes[-1].held()
        return standing.ready, processes[-1].used() / held if held > 1 else None, standing.queued

    def _left(self, count: int, rate: float) -> float | None:
        """Seconds until the phase is over, at this rate, or until a budget in time is spent."""
        limits = [count / rate] if count > 0 and rate > 0 else []
        limit = self._session.time_left() if self.phase == "search" else None
        return min([*limits, *([max(0.0, limit)] if limit is not None else [])], default=None)
