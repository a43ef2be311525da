"""One process's hold on a run: how long it lasted, and what its workers cost."""

from dataclasses import dataclass
from typing import assert_never

from evomerge.events import Evaluated, Opened, Stamped, Workers

AS_BEFORE = "as before"
"""In place of a worker: the same model had been scored on the same items."""


def worker_names(evaluated: Evaluated) -> list[str]:
    """The workers that a work was done by: several, if its items were split; none, if it was answered as before."""
    return [name for name in evaluated.worker.split("+") if name and name != AS_BEFORE]


@dataclass
class Process:
    """A process that held the run, as its events say.

    `last` is how many seconds it is known to have had it. `standing` is how its workers stood last, after `stood`
    seconds, `worked` how many seconds they are known to have worked since then.
    """

    opened: Opened
    last: float = 0.0
    standing: Workers | None = None
    stood: float = 0.0
    worked: float = 0.0

    def passes(self, event: Stamped) -> None:
        """Take in how much time has passed; where there is only the wall clock, which may have been set, no less."""
        since = event.at - self.opened.at if event.elapsed is None else event.elapsed
        self.last = max(self.last, since)

    def stands(self, event: Workers) -> None:
        """Take in how the workers stand."""
        self.standing, self.stood, self.worked = event, self.last, 0.0

    def works(self, event: Evaluated) -> None:
        """Take in what came back: what was worked before the last line is in that line."""
        workers = len(worker_names(event))
        if self.standing is not None and workers:
            seconds = event.seconds.merge + event.seconds.score
            self.worked += max(0.0, min(seconds, workers * (self.last - self.stood)))

    def held(self, until: float | None = None) -> float:
        """Worker-seconds held until so many seconds had passed, the last known if none are given.

        In this very process there is one worker, for as long as it lasts.
        """
        until = self.last if until is None else until
        match self.opened.executor:
            case "inline":
                return until
            case "ray":
                standing = self.standing
                return 0.0 if standing is None else standing.held + standing.ready * max(0.0, until - self.stood)
            case _:
                assert_never(self.opened.executor)

    def used(self) -> float:
        """Worker-seconds with a work so far; none where nobody writes them down."""
        return 0.0 if self.standing is None else min(self.held(), self.standing.used + self.worked)

    @property
    def accelerators(self) -> float:
        """Those of each worker; a worker on a CPU counts as one."""
        return (self.standing.gpus if self.standing is not None else 0.0) or 1.0

    def accelerator_seconds(self, until: float | None = None) -> float:
        """What it cost, as `held` counts."""
        return self.held(until) * self.accelerators
