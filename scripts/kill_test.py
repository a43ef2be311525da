"""Kill a search with SIGKILL at random instants, resume it each time, and compare it with one left alone.

    scripts/kill_test [--kills N] [--optimizer KIND]

The resumed journal and its marks must equal the undisturbed ones, event for event and bit for bit; time stamps,
timings and worker names aside. Exit status 1 if they do not, or if more than one kill came too late.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "evomerge/demo/models"
PROCESS = ("opened", "closed", "incident", "extended")
"""Events that tell of processes, not of the search."""
VOLATILE = ("at", "seconds", "layer_evaluations", "worker")


def write_run_file(folder: Path, optimizer: str, evaluations: int) -> Path:
    """A search over the demo's models, small enough to be run again and again."""
    tasks = ("math_ja", "lists") if optimizer == "nsga2" else ("math_ja",)
    plain = {
        "models": {
            "base": str(MODELS / "base"),
            "experts": {name: str(MODELS / name) for name in ("maths", "japanese", "lists")[: 1 + len(tasks)]},
        },
        "space": "per-layer",
        "fitness": {
            "include": [str(ROOT / "fitness/demo")],
            "objectives": {task: {"task": task, "metric": "acc"} for task in tasks},
            "items": {"search": 32, "confirm": 64, "group": "group"},
            "estimator": {"items": 12, "rungs": [4], "refresh": 0.2},
        },
        "optimizer": {"kind": optimizer},
        "budget": {"evaluations": evaluations},
        "seed": 11,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def command(*arguments: object) -> list[str]:
    """The command line of evomerge, in this interpreter."""
    return [sys.executable, "-m", "evomerge", *map(str, arguments)]


def lines(run: Path) -> int:
    """How many whole lines the journal has."""
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def killed(arguments: list[str], run: Path, target: int, rng: random.Random) -> bool:
    """Start a process and kill it a moment after the journal has `target` lines; False if it ended before."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and lines(run) < target:
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.06))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def story(run: Path) -> tuple[list[Any], bytes]:
    """What a journal says of the search, and the marks."""
    found = []
    for line in (run / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)["event"]
        if event["kind"] not in PROCESS:
            found.append({key: value for key, value in event.items() if key not in VOLATILE})
    return found, (run / "responses/marks.f64").read_bytes()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--optimizer", default="cma")
    parser.add_argument("--seed", type=int, default=0, help="of the instants of the kills")
    wanted = parser.parse_args()
    rng = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = write_run_file(folder, wanted.optimizer, wanted.evaluations)
        alone, run = folder / "alone", folder / "run"
        subprocess.run(command("search", spec, "--out", alone), check=True, capture_output=True)
        total = lines(alone)
        targets = sorted(rng.sample(range(1, total), wanted.kills))
        kills = 0
        for target in targets:
            arguments = (
                command("resume", run) if (run / "spec.yaml").exists() else command("search", spec, "--out", run)
            )
            kills += killed(arguments, run, max(target, lines(run)), rng)
            print(f"kill {kills}: {lines(run)} of {total} lines", flush=True)
        subprocess.run(command("resume", run), check=True, capture_output=True)
        (events, marks), (expected, expected_marks) = story(run), story(alone)
    same = events == expected and marks == expected_marks
    verdict = "equal" if same else "DIFFERENT"
    print(f"{kills} kills, {len(expected)} events, {len(expected_marks)} bytes of marks: {verdict}")
    for place, (one, other) in enumerate(zip(events, expected, strict=False)):
        if one != other:
            print(f"first difference at event {place}:\n  {one}\n  {other}")
            break
    return 0 if same and kills >= wanted.kills - 1 else 1


if __name__ == "__main__":
    sys.exit(main())
