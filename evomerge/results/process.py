"""One process's hold on a run: how long it lasted, and what its workers cost."""

from dataclasses import dataclass

from evomerge.events import Evaluated, Opened, Workers

AS_BEFORE = "as before"
"""In place of a worker: the same model had been scored on the same items."""


def worker_names(evaluated: Evaluated) -> list[str]:
    """The workers that a work was done by: several, if its items were split; none, if it was answered as before."""
    return [name for name in evaluated.worker.split("+") if name and name != AS_BEFORE]


@dataclass
class Process:
    """A process that held the run, as its events say. Stamps are of the wall clock.

    `standing` is how its workers stood last, `worked` how many seconds they are known to have worked since then.
    """

    opened: float
    last: float
    executor: str
    standing: Workers | None = None
    worked: float = 0.0

    @classmethod
    def of(cls, event: Opened) -> "Process":
        """As it begins."""
        return cls(event.at, event.at, event.executor)

    def stands(self, event: Workers) -> None:
        """Take in how the workers stand."""
        self.standing, self.worked = event, 0.0

    def works(self, event: Evaluated) -> None:
        """Take in what came back: what was worked before the last line is in that line."""
        workers = len(worker_names(event))
        if self.standing is not None and workers:
            seconds = event.seconds.merge + event.seconds.score
            self.worked += max(0.0, min(seconds, workers * (event.at - self.standing.at)))

    def held(self, until: float | None = None) -> float:
        """Worker-seconds held, to the last stamp if no other is given.

        In this very process there is one worker, for as long as it lasts.
        """
        until = self.last if until is None else until
        if self.executor == "inline":
            return until - self.opened
        if self.standing is None:
            return 0.0
        return self.standing.held + self.standing.ready * max(0.0, until - self.standing.at)

    def used(self) -> float:
        """Worker-seconds with a work, to the last stamp; none where nobody writes them down."""
        return 0.0 if self.standing is None else min(self.held(), self.standing.used + self.worked)

    @property
    def accelerators(self) -> float:
        """Those of each worker; a worker on a CPU counts as one."""
        return (self.standing.gpus if self.standing is not None else 0.0) or 1.0

    def accelerator_seconds(self, until: float | None = None) -> float:
        """What it cost, to the last stamp if no other is given."""
        return self.held(until) * self.accelerators
