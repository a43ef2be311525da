"""Where evaluations run."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from evomerge.events import Incident
from evomerge.execute.inline import InlineExecutor
from evomerge.trial import Evaluation, Work

__all__ = ["Evaluate", "Executor", "InlineExecutor"]

Evaluate: TypeAlias = Callable[[Work], Evaluation]


class Executor(Protocol):
    """Workers behind one face; results come back in any order."""

    @property
    def free(self) -> int:
        """How many works could begin now."""
        ...

    def submit(self, work: Work) -> None:
        """Hand a work over."""
        ...

    def wait(self, timeout: float | None) -> list[Evaluation | Incident]:
        """Block until something is there, or the time is up; everything that is there."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...
