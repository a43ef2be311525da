"""Ctrl-C and SIGTERM during a search: what had begun is finished, and nothing is lost."""

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from evomerge import signals
from evomerge.environment import seconds_from
from evomerge.session import Session

GRACE = 20.0
"""Seconds that running candidates get after SIGTERM or SIGHUP: whoever sends it kills soon, Kubernetes after 30."""
GRACE_NAME = "EVOMERGE_GRACE"
"""In the environment: another number of seconds."""


def grace() -> float:
    """How long running candidates get after SIGTERM.

    Raises:
        SpecError: the environment says something that is no number of seconds.
    """
    return seconds_from(GRACE_NAME, GRACE)


class Interruptible:
    """While it lasts, the first Ctrl-C, SIGTERM or SIGHUP lets running candidates finish; a second does not.

    After SIGTERM and SIGHUP they have `grace` seconds. What they did not finish is done again on resuming.

    Raises:
        SpecError: the environment asks for a grace that is none.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._grace = grace()
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> None:
        """Take the signals over, where the system lets us: in the main thread."""
        for number in self._signals() if threading.current_thread() is threading.main_thread() else ():
            self._before[number] = signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signals.hang_up()
        if self._session.stopping:
            signals.interrupt(number, frame)
        self._session.stop()
        if number != signal.SIGINT:
            signal.setitimer(signal.ITIMER_REAL, self._grace)

    @staticmethod
    def _signals() -> Sequence[signal.Signals]:
        return (*signals.heeded(), signal.SIGALRM)
