"""Drivers, nodes and what is left of them: real processes, started and ended one by one."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from conftest import DEMO_MODELS, ROOT, content
from network import Host
from troubled import Troubled

from evomerge.assemble import search
from evomerge.spec import load_run

AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Other clusters of this machine are none of ours."""


PATIENCE = 120.0
"""Seconds that a busy machine may take to start a search on Ray, or to get it over with."""
ATTENTIVE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A head that misses a silent node in seconds; by default it takes half a minute."""


def surroundings(**more: str) -> dict[str, str]:
    """Environment of whatever is started here: no cluster of somebody else's, modules of the tests."""
    ours = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return without("RAY_") | ours | more


def without(*prefixes: str) -> dict[str, str]:
    """Our environment but for such names; Ray's tuning, whose names end in small letters, stays."""
    return {name: value for name, value in os.environ.items() if not (name.startswith(prefixes) and name.isupper())}


def write_run(folder: Path, *, models: Path = DEMO_MODELS, labels: str = "a", **changes: object) -> Path:
    """A run file over the demo's models for the cheap scorer."""
    plain: dict[str, object] = {
        "models": {
            "base": str(models / "base"),
            "experts": {"maths": str(models / "maths"), "japanese": str(models / "japanese")},
        },
        "space": "per-layer",
        "fitness": {
            "objectives": {label: {"task": "norms", "metric": label} for label in labels},
            "items": {"search": 24, "confirm": 24},
            "estimator": {"items": 20, "rungs": []},
        },
        "optimizer": {"kind": "cma", "population": 6, "mode": "generation"},
        "budget": {"evaluations": 40},
        "executor": {"kind": "ray", "workers": 2},
        "seed": 3,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain | changes, sort_keys=False))
    return path


def undisturbed(folder: Path, **changes: object) -> dict[str, object]:
    """What the same search finds in this very process, if nothing befalls it."""
    place = Path(tempfile.mkdtemp(dir=folder))
    spec = load_run(write_run(place, executor="inline", **changes))
    search(spec, place / "RUN", scorer=Troubled(str(place)))
    return content(place / "RUN")


class Driver:
    """A search in a process and a process group of its own, as a shell starts it; perhaps on another host."""

    def __init__(
        self, folder: Path, *arguments: object, seconds: float = 0.0, host: Host | None = None, **environment: str
    ) -> None:
        self.troubles = folder / "troubles"
        self.troubles.mkdir(exist_ok=True)
        self._log = folder / f"driver-{time.monotonic_ns()}.log"
        line = [sys.executable, str(ROOT / "tests/driver.py"), str(self.troubles), str(seconds), *map(str, arguments)]
        line = line if host is None else host.within(line)
        around = surroundings(EVOMERGE_TEST=str(self.troubles), **environment)
        with self._log.open("w") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=around, process_group=0)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def meets(self, trouble: str) -> None:
        (self.troubles / trouble).touch()

    def ends(self, status: int, seconds: float) -> str:
        """Wait for its end; what it said."""
        self.process.wait(seconds)
        assert self.process.returncode == status, self.said
        assert "Traceback" not in self.said
        return self.said

    def processes(self, command: str = "") -> dict[int, str]:
        """What it started, and itself."""
        return processes(f"EVOMERGE_TEST={self.troubles}", command)

    def kill(self) -> None:
        """The driver alone, as the system would."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def driving(
    folder: Path, *arguments: object, seconds: float = 0.0, host: Host | None = None, **environment: str
) -> Iterator[Driver]:
    """A driver that is gone at the end, with all it started."""
    driver = Driver(folder, *arguments, seconds=seconds, host=host, **environment)
    try:
        yield driver
    finally:
        if driver.process.poll() is None:
            driver.kill()
        until(lambda: all("Agent" in line for line in driver.processes().values()), 30, lambda: str(driver.processes()))
        # Where the head was killed, Ray's helpers on that node try for a minute to tell it of their end.
        for pid in driver.processes():
            kill(pid)


class Node:
    """A node of a cluster, as `ray start` makes it: a group of processes of its own, on loopback or another host."""

    def __init__(self, home: Path, address: str, options: list[str], *, head: bool, host: Host | None) -> None:
        port = address.rpartition(":")[2]
        place = ["--head", f"--port={port}", f"--temp-dir={home}", "--include-dashboard=false"]
        own = host.address if host is not None else "127.0.0.1"
        line = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--node-ip-address={own}", *options]
        line += place if head else [f"--address={address}"]
        line = line if host is None else host.within(line)
        self._host = host
        self.mark = f"EVOMERGE_NODE={home}-{time.monotonic_ns()}"
        around = surroundings(**AUTH, **ATTENTIVE, **dict([self.mark.split("=", 1)]))
        with (home / f"node-{time.monotonic_ns()}.log").open("w") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=around, process_group=0)

    def processes(self, command: str = "") -> dict[int, str]:
        """What runs on it."""
        return processes(self.mark, command)

    def lose(self) -> None:
        """All at once, as when the machine loses its power."""
        while left := self.processes():
            for pid in left:
                kill(pid)
            time.sleep(0.1)
        self.process.wait()

    def vanish(self) -> None:
        """Fall silent, as when its cable is cut: nobody hears of its end. On loopback it loses its power."""
        if self._host is None:
            self.lose()
        else:
            self._host.unplug()


class Nodes:
    """A cluster of nodes on this machine, the head perhaps on a host; at the end of the block they are gone."""

    def __init__(self, host: Host | None = None) -> None:
        self._host = host
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"{'127.0.0.1' if host is None else host.address}:{free.getsockname()[1]}"
        # Paths of sockets must be short.
        self.home = Path(tempfile.mkdtemp(prefix="evo", dir="/tmp"))
        self.nodes: list[Node] = []

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.lose()
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self, cpus: int, *options: str, host: Host | None = None) -> Node:
        """One more; the first is the head, which others can reach when this returns."""
        head = not any(node.process.poll() is None for node in self.nodes)
        options = (f"--num-cpus={cpus}", *options)
        node = Node(self.home, self.address, list(options), head=head, host=self._host if head else host)
        self.nodes.append(node)
        until(lambda: node.processes("raylet/raylet"), PATIENCE, lambda: f"no raylet: {self._logs()}")
        return node

    def _logs(self) -> str:
        return "".join(path.read_text() for path in self.home.glob("node-*.log"))


def processes(mark: str, command: str = "") -> dict[int, str]:
    """Living processes with a mark in their environment, by what they run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command in line and line:
                    found[int(folder.name)] = line[:80]
    return found


def kill(pid: int) -> bool:
    """Kill a process, if it is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def until(
    done: Callable[[], object], seconds: float = 60.0, why: Callable[[], str] = lambda: "it did not come true in time"
) -> None:
    """Wait for it."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, why()
        time.sleep(0.05)


def lines(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def evaluated(run: Path) -> int:
    """How many results are in the journal."""
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b'"kind":"evaluated"') if journal.exists() else 0
