"""Evaluation in this very process: one work at a time, nothing to set up, nothing to lose."""

from collections.abc import Callable

from evomerge.events import Incident, Workers
from evomerge.trial import Evaluation, Work


class InlineExecutor:
    """Runs a work when it is waited for."""

    def __init__(self, evaluate: Callable[[Work], Evaluation]) -> None:
        self._evaluate = evaluate
        self._queue: list[Work] = []

    @property
    def free(self) -> int:
        """One, unless something is queued."""
        return 0 if self._queue else 1

    def submit(self, work: Work) -> None:
        """Queue a work."""
        self._queue.append(work)

    def wait(self, timeout: float | None) -> list[Evaluation | Incident | Workers]:  # noqa: ARG002  A work cannot be left half done.
        """Do the next work; nothing if there is none."""
        return [self._evaluate(self._queue.pop(0))] if self._queue else []

    def close(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
