"""Interrupt a search twice at random instants, again and again: it must always end at once and say how to go on.

    scripts/interrupt_test [--times N] [--seed N]

The first signal, Ctrl-C mostly, comes at any instant from the process's beginning on, the second up to a second later.
Every process must end with exit status 130, its last line saying how to go on if there is a run, and without a
traceback. Exit status 1 if one does not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kill_test import command, write_run_file

from evomerge.results import Results
from evomerge.runs import is_run

SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 60.0


def heeds(process: "subprocess.Popen[str]") -> bool:
    """Whether the process catches SIGHUP, which the interpreter itself does not: it is ours by now."""
    caught = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line]
    return bool(caught) and bool(int(caught[0].split()[1], 16) & 1 << signal.SIGHUP - 1)


def worked(process: "subprocess.Popen[str]") -> float:
    """Seconds of processor time that the process has had: however busy the machine, it has come as far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def interrupted(arguments: list[str], pauses: tuple[float, float], sent: Sequence[signal.Signals]) -> tuple[int, str]:
    """Start a process, send it a signal when it has worked so long and one so much later; its status, what it said."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not heeds(process):
        time.sleep(0.001)
    began = worked(process)
    while process.poll() is None and worked(process) < began + pauses[0]:
        time.sleep(0.001)
    process.send_signal(sent[0])
    time.sleep(pauses[1])
    process.send_signal(sent[1])
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def complaint(run: Path, status: int, said: str) -> str | None:
    """What is wrong with the end of a process, if anything is."""
    last = said.rstrip().splitlines()[-1:] or [""]
    if status != 130:
        return f"exit status {status}"
    if any(word in said for word in ("Traceback", "Exception ignored")):
        return "a traceback"
    if not last[0].startswith("evomerge: ") or (is_run(run) and f"evomerge resume {run}" not in last[0]):
        return f"the last line is {last[0]!r}"
    if is_run(run) and Results.load(run).status not in ("stopped", "finished"):
        return f"the run is {Results.load(run).status}"
    return None


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of work after which the first signal comes at the latest"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    given = parser.parse_args()
    rng, found = random.Random(given.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        path = write_run_file(Path(name), "cma", 100_000, "inline")
        for turn in range(given.times):
            run, pauses = Path(name) / f"run-{turn}", (rng.uniform(0, given.seconds), 10 ** rng.uniform(-4, 0))
            status, said = interrupted(command("search", path, "--out", run), pauses, rng.choices(SIGNALS, k=2))
            wrong = complaint(run, status, said)
            found[wrong or ("stopped" if is_run(run) else "interrupted before there was a run")] += 1
            if wrong:
                print(f"after {pauses[0]:.3f} and {pauses[1]:.4f} s: {wrong}\n{said}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in found.items()))
    return int(not set(found) <= {"stopped", "interrupted before there was a run"})


if __name__ == "__main__":
    sys.exit(main())
