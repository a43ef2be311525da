"""Progress while a command works."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evomerge.results import amount, non_dominated, volumes
from evomerge.session import Session
from evomerge.terminal.units import duration
from evomerge.trial import Evaluation

QUIET_EVERY = 10.0
"""Seconds between progress lines where there is no terminal."""
WIDTH = 140
"""Columns of a table where there is no terminal to be asked."""
PHASES = {"baseline": "fixed recipes", "search": "search", "refresh": "search", "confirm": "confirm"}
"""What the purpose of a work item is called."""


def console(*, err: bool = False) -> Console:
    """The console that everything is printed to."""
    found = Console(stderr=err, soft_wrap=True, highlight=False, markup=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


class Ticker:
    """Progress of a search: best, front size, rate and time left; quiet lines when not at a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._said = time.monotonic()
        self._started = time.monotonic()
        self._done_before = 0
        self._phase = ""
        self._points: dict[int, tuple[float, ...]] = {}
        self._failed = 0
        self._run, self._reused = 0, 0
        self._stage = ""
        self._incidents = 0

    def enter(self, stage: str) -> None:
        """Another stage begins."""
        self.close()
        self._stage, self._phase = f"{stage}: ", ""

    def say(self, text: str) -> None:
        """A remark."""
        self._console.print(text, style="dim" if self._console.is_terminal else None)

    def watch(self, session: Session, evaluation: Evaluation) -> None:
        """Take a result in and show where things stand."""
        phase = PHASES[session.state.works[evaluation.work].purpose]
        done, total = self._counts(session, phase)
        if phase != self._phase:
            self._begin(session, phase, done - 1, evaluation.seconds.merge + evaluation.seconds.score)
        elif phase == "search":
            self._take(session, evaluation.number)
        if (layers := evaluation.layer_evaluations) is not None:
            self._run, self._reused = self._run + layers.run, self._reused + layers.reused
        self._tell_incidents(session)
        text = "  ".join((*self._found(session), *self._busy(session), *self._pace(done, total)))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total or None, standing=text)
        elif time.monotonic() - self._said >= QUIET_EVERY or done == total:
            self._said = time.monotonic()
            self._console.print(f"{self._stage}{phase} {done}{f'/{total}' if total else ''}  {text}")

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, session: Session, phase: str, done: int, seconds: float) -> None:
        """A new phase, in which `done` were there before and the first one took `seconds`."""
        self.close()
        self._phase, self._done_before, self._started = phase, done, time.monotonic() - seconds
        self._points, self._failed = {}, 0
        for evaluated in session.state.finished() if phase == "search" else ():
            self._take(session, evaluated.number)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[standing]}"), console=self._console)
            self._bar.add_task(f"{self._stage}{phase}", standing="", total=None)
            self._bar.start()

    def _counts(self, session: Session, phase: str) -> tuple[int, int]:
        """How many are done, and of how many, 0 if that is not known."""
        state = session.state
        if phase == "search":
            return len(state.finished()), state.budget.evaluations or 0
        works = [work for work in state.works.values() if PHASES[work.purpose] == phase]
        return sum(work.work in state.outcomes for work in works), len(works) if phase == "confirm" else 0

    def _take(self, session: Session, number: int) -> None:
        grader, values = session.appraiser.grader, session.appraiser.values(number)
        if values is None:
            self._failed += 1
        else:
            signed = zip(map(grader.sign, values), values.values(), strict=True)
            self._points[number] = tuple(sign * estimate.value for sign, estimate in signed)

    def _volume(self, session: Session) -> list[str]:
        """The hypervolume, from the worst fixed recipe of each objective; costs have no such place before the end."""
        grader, candidates = session.appraiser.grader, session.state.candidates
        fixed = [point for number, point in self._points.items() if candidates[number].name is not None]
        if not fixed or grader.costs:
            return []
        found = volumes(list(self._points.values()), fixed, [False] * len(fixed[0]))
        return [f"hypervolume {found['front']:.3f}"]

    def _busy(self, session: Session) -> list[str]:
        """How many workers there are, if they come and go, and how much of their time is used."""
        process = session.state.processes[-1] if session.state.processes else None
        if process is None or process.standing is None:
            return []
        held = process.held()
        used = f" {process.used() / held:.0%} used" if held > 1 else ""
        return [f"workers {process.standing.ready}{used}"]

    def _tell_incidents(self, session: Session) -> None:
        """Say what befell workers since the last result: the last of it, and how much there was."""
        fresh = session.state.incidents[self._incidents :]
        self._incidents += len(fresh)
        if fresh:
            more = f" (and {len(fresh) - 1} more)" if len(fresh) > 1 else ""
            self.say(f"{fresh[-1].worker or fresh[-1].stage}: {fresh[-1].what}{more}; see evomerge show")

    def _found(self, session: Session) -> list[str]:
        """The best of each objective, the size of the front, failures, layers that were not run again."""
        parts, points = [], list(self._points.values())
        if points:
            grader = session.appraiser.grader
            best = {
                label: grader.sign(label) * max(column)
                for label, column in zip(grader.fitness.objectives, zip(*points, strict=True), strict=True)
            }
            shown = (f"{label} {amount(value, exact=label in grader.costs)}" for label, value in best.items())
            parts.append("best " + ", ".join(shown))
            if len(points[0]) > 1:
                parts.append(f"front {len(non_dominated(points))}")
                parts += self._volume(session)
        parts += [f"{self._failed} failed"] if self._failed else []
        share = self._reused / max(1, self._run + self._reused)
        return parts + ([f"{share:.0%} of layers reused"] if share else [])

    def _pace(self, done: int, total: int) -> list[str]:
        """The rate, and the time left where no bar shows it."""
        passed = time.monotonic() - self._started
        rate = (done - self._done_before) / passed if passed > 0 else 0.0
        parts = [f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"]
        if total > done and rate > 0 and not self._console.is_terminal:
            parts.append(f"{duration((total - done) / rate)} left")
        return parts
