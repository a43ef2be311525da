"""Where evaluations run."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from evomerge.events import Incident, Workers
from evomerge.execute.inline import InlineExecutor
from evomerge.trial import Evaluation, Work

__all__ = ["Evaluate", "Executor", "InlineExecutor", "News"]

Evaluate: TypeAlias = Callable[[Work], Evaluation]
News: TypeAlias = Evaluation | Incident | Workers
"""What an executor has to say: a result, something that went wrong, how the workers stand."""


class Executor(Protocol):
    """Workers behind one face; results come back in any order."""

    @property
    def free(self) -> int:
        """How many works could begin now."""
        ...

    def submit(self, work: Work) -> None:
        """Hand a work over."""
        ...

    def wait(self, timeout: float | None) -> Sequence[News]:
        """Block until something is there, or the time is up; everything that is there."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...
