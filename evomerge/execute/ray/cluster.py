"""The Ray cluster that workers run on, found again when its head was lost."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from evomerge.errors import SpecError

PATIENCE = 0.5
"""Seconds between two looks at the head: what asks one that is away for anything waits for a minute, then ends us."""
COUNT = 5.0
"""Seconds between two looks whether there is any node."""
SILENCE = 60.0
"""Seconds without a worker after which the head of others is asked for its nodes.

One that is another than it was, at the same address, ends who asks it for them. Workers notice that before.
"""
KNOCKS, KNOCK = 2, 3.0
"""How often a head may not answer before it counts as away, and for how many seconds."""


class Cluster:
    """A connection to Ray: to a cluster at an address, or to one of this machine alone that ends with the process.

    Raises:
        SpecError: there is no cluster at the address.
    """

    def __init__(self, address: str | None, least_cpus: int, say: Callable[[str], None]) -> None:
        """`least_cpus` are promised to workers where Ray is started here, whether or not there are as many cores."""
        self._address = None if address == "local" else address or os.environ.get("RAY_ADDRESS") or None
        self._least_cpus = least_cpus
        self._say = say
        self._mine = not ray.is_initialized()
        self._looked, self._is_lost = 0.0, False
        self._counted, self._has_nodes = 0.0, True
        self._connect()
        self._head: str = ray.get_runtime_context().gcs_address

    def resources(self) -> dict[str, float]:
        """What all living nodes have, busy or not."""
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return found

    def most_on_a_node(self, need: dict[str, float]) -> int:
        """How many workers of this need the largest node has room for, at least one."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return max([1, *(rooms_for(need, resources) for resources in nodes)])

    def is_lost(self, *, at_once: bool = False) -> bool:
        """Whether the head is away, and was not found again since; asked for now and then, or at once."""
        if not self._is_lost and (at_once or time.monotonic() - self._looked >= PATIENCE):
            self._looked = time.monotonic()
            self._is_lost = not _answers(self._head) or (self.is_ours and not self.has_nodes())
        return self._is_lost

    @property
    def is_ours(self) -> bool:
        """Whether it was started here, and is nobody else's."""
        return self._mine and self._address is None

    def has_nodes(self, *, workers: bool = False) -> bool:
        """Whether any node is alive, as the head that answers knew a moment ago; with `workers` of others' there is.

        A node ends itself when one of Ray's agents on it does; the head of a cluster of one machine stays behind then.
        """
        now = time.monotonic()
        if workers and not self.is_ours:
            self._counted, self._has_nodes = now + SILENCE, True
        elif now - self._counted >= COUNT and _answers(self._head):
            self._counted = now
            self._has_nodes = any(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        return self._has_nodes

    def give_up(self) -> None:
        """Treat it as lost: it answers, and not as the cluster that we knew."""
        self._is_lost = True

    def reconnect(self) -> bool:
        """Try to find the cluster again; whether it is there. Everything that was on it is lost."""
        ray.shutdown()
        if self._address is not None and not _answers(self._head):
            return False
        try:
            self._connect()
        except SpecError:
            return False
        self._head, self._is_lost = ray.get_runtime_context().gcs_address, False
        self._counted, self._has_nodes = time.monotonic(), True
        return True

    def close(self) -> None:
        """Let go of it; one that was started here ends."""
        if self._mine:
            ray.shutdown()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        handler = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if self._address is None:
                _keep_secret_in_memory()
                self._say("starting Ray on this machine")
                # Left out, it would be whatever cluster was last started on this machine, by anybody.
                cores = max(_cores(), self._least_cpus)
                ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
            else:
                self._say(f"connecting to Ray at {self._address}")
                # Ray itself would end the process where nobody answers.
                if ":" in self._address and not _answers(self._address):
                    raise ConnectionError("nobody answers")
                ray.init(address=self._address, **quiet)
        except Exception as error:  # noqa: BLE001  Ray raises Exception itself where it does not come up.
            reason = " ".join(str(error).split())[:200]
            raise SpecError(
                f"executor.address: no Ray cluster can be used at {self._address or 'this machine'} ({reason}); give"
                " auto or HOST:PORT on a machine of a running cluster, or local to start Ray here"
            ) from None
        finally:
            # Ray's own would end the process at once, and lose what is being done.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)


def rooms_for(need: dict[str, float], resources: dict[str, float]) -> int:
    """How often a need fits into resources."""
    return min(int(resources.get(name, 0.0) / amount + 1e-6) for name, amount in need.items() if amount)


def _answers(address: str) -> bool:
    return any(_opens(address) for _ in range(KNOCKS))


def _opens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except (OSError, ValueError):
        return False
    return True


def _keep_secret_in_memory() -> None:
    """Give a cluster of this process alone a token of its own, which Ray would otherwise write to the home folder."""
    given = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(name in os.environ for name in given) and not (Path.home() / ".ray/auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, macOS has not.
    return len(affinity(0)) if affinity else os.cpu_count() or 1
