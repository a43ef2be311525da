"""How long a search waits for a cluster that is not there, and how often it comes back to one."""

import time

from evomerge.environment import seconds_from
from evomerge.errors import RunError

SECONDS = 1800.0
"""That a cluster of others may be without any node, or its head away."""
SECONDS_NAME = "EVOMERGE_PATIENCE"
"""In the environment: another number of them."""
MOST_STARTS = 3
"""Times in a row that Ray on this machine is started again before anything comes back from it."""
MOST_LOSSES = 10
"""The same for a cluster of others that is lost and found."""


class Patience:
    """What a search puts up with; every answer says what it cannot any more.

    Raises:
        SpecError: the environment asks for a patience that is none.
    """

    def __init__(self, *, ours: bool) -> None:
        """`ours` is a Ray that was started here."""
        self._ours = ours
        self._seconds = seconds_from(SECONDS_NAME, SECONDS)
        self._since = time.monotonic()
        self._losses = 0

    def is_rewarded(self) -> None:
        """Something came back."""
        self._losses = 0

    def loses(self) -> RunError | None:
        """The cluster was lost, or could not be started again."""
        self._losses += 1
        if self._losses <= (MOST_STARTS if self._ours else MOST_LOSSES):
            return None
        if self._ours:
            return RunError(f"Ray on this machine ended {self._losses} times in a row; look after its memory and disk")
        return RunError(f"the cluster was lost {self._losses} times in a row; see: ray status")

    def waits(self, *, alone: bool, unseen: float) -> RunError | None:
        """There is, or is not, a node to wait for; for `unseen` seconds before nobody has looked."""
        now = time.monotonic()
        self._since = self._since + unseen if alone else now
        if now - self._since <= self._seconds:
            return None
        wait = f"{SECONDS_NAME} is how long is waited"
        return RunError(f"the cluster has had no node for {self._seconds:g} s ({wait}); see: ray status")
