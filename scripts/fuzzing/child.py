"""One command line in a process of its own, watched: its status, its words, its time and its memory."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OUT = ".out"
ERR = ".err"
"""What a command printed, in the folder it ran in."""
MEMORY = 2 * 2**30
"""Bytes that a command may have in memory."""
SECONDS = 10.0 + 10.0
"""Seconds of computing that a command may take, with the ten or so that lm-eval needs to list its stock tasks.

By the clock it may be four times as long, as other processes compute too.
"""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Outcome:
    """What came of a command line; `killed` says why it was ended, if it was."""

    status: int
    out: str
    err: str
    killed: str = ""

    @property
    def fault(self) -> str:
        """In words, what no command may do, whatever it was given; empty if it did nothing of the kind."""
        if self.killed:
            return self.killed
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if self.status not in (0, 1, 2):
            return f"exit status {self.status}"
        lines = self.err.rstrip("\n").split("\n")
        complaints = [place for place, line in enumerate(lines) if line.startswith("evomerge: ")]
        if self.status and complaints != [len(lines) - 1]:
            return "no single last line that says what is wrong"
        return ""


def run(arguments: Sequence[str], folder: Path) -> Outcome:
    """Run a command line of evomerge in a folder, in a copy of this process, which has everything imported."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = folder / OUT, folder / ERR
    child = os.fork()
    if not child:
        _become(arguments, folder, out, err)
    killed = _watch(child)
    _, status = os.waitpid(child, 0)
    return Outcome(os.waitstatus_to_exitcode(status), out.read_text("utf8", "replace"), _plain(err), killed)


def _become(arguments: Sequence[str], folder: Path, out: Path, err: Path) -> None:
    """In the child: do it, and end."""
    status = 1
    try:
        os.chdir(folder)
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["EVOMERGE_CACHE"] = str(folder / ".cache")
        sys.argv = ["evomerge", *arguments]
        from evomerge.cli import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  Whatever it is, an interpreter would print it.
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(child: int) -> str:
    """Wait for a child; end it if it takes too much, and say of what."""
    started = time.monotonic()
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.02)
        seconds, memory = _taken(child)
        if memory > MEMORY:
            why = f"more than {MEMORY >> 30} GB of memory"
        elif seconds > SECONDS or time.monotonic() - started > 4 * SECONDS:
            why = f"no end after {SECONDS:.0f} s"
        else:
            continue
        os.kill(child, signal.SIGKILL)
        return why
    return ""


def _taken(child: int) -> tuple[float, int]:
    """Seconds that a process has computed, and bytes it has in memory."""
    try:
        stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS, int(stat[21]) * PAGE
    except (OSError, IndexError):
        return 0.0, 0


def _plain(err: Path) -> str:
    return err.read_text("utf8", "replace").replace("\r", "\n")
