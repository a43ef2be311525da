"""One worker as the driver sees it."""

from dataclasses import dataclass
from typing import Any

from evomerge.execute.ray.messages import Ready


@dataclass(eq=False)
class Member:
    """One worker: being set up until `ready` says what it has, at work while there is a `task`.

    It is asked for a sign of life before every task, so that of one that is gone can be told whether it lived to begin.
    """

    actor: Any
    task: Any
    """The answer it owes: of its setting up, of a work, or none."""
    pulse: Any
    """The sign of life that it owes, or none."""
    is_there: bool = False
    """Whether it gave the last one."""
    ready: Ready | None = None
    since: float = 0.0
    """When it became ready."""
    begun: float | None = None
    """When it began the task; None before its process was there."""
    heard: float = 0.0
    """When it said something last."""
    excused: float = 0.0
    """Seconds since it began in which nobody listened."""
    works: int = 0
    """How many it has done, with marks."""

    @property
    def name(self) -> str:
        """How the journal calls it; nothing before it is ready."""
        return self.ready.name if self.ready is not None else ""

    @property
    def place(self) -> str:
        """The device that it computes on, as no other is called."""
        return self.ready.place if self.ready is not None else ""

    def working(self, now: float) -> float:
        """Seconds that it has been at its task, as far as anybody listened."""
        return 0.0 if self.begun is None or self.task is None else now - self.begun - self.excused
