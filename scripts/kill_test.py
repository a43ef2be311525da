"""Kill a search with SIGKILL at random instants, resume it each time, and compare it with one left alone.

    scripts/kill_test [--kills N] [--optimizer KIND] [--grain GRAIN] [--executor ray]

The resumed journal and its marks must equal the undisturbed ones, event for event and bit for bit; time stamps,
timings and worker names aside. On Ray, where two workers come back in any order, the same must have been proposed,
scored and believed, and a killed search must leave no process behind. Exit status 1 if this is not so, or if more than
one kill came too late.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from evomerge.events import EVENT, Evaluated
from evomerge.store import RunStore

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "evomerge/demo/models"
VOLATILE = ("at", "elapsed", "seconds", "layer_evaluations", "worker")


def write_run_file(folder: Path, optimizer: str, evaluations: int, executor: str, grain: str = "tensor") -> Path:
    """A search over the demo's models, small enough to be run again and again; `grain` is what gradient learns."""
    learns = optimizer == "gradient"
    tasks = ("math_ja", "lists") if optimizer == "nsga2" else ("math_ja",)
    plain: dict[str, Any] = {
        "models": {
            "base": str(MODELS / "base"),
            "experts": {name: str(MODELS / name) for name in ("maths", "japanese", "lists")[: 1 + len(tasks)]},
        },
        "space": _learned(grain) if learns else "per-layer",
        "fitness": {
            "include": [str(ROOT / "fitness/demo")],
            "objectives": {task: {"task": task, "metric": "acc"} for task in tasks},
            "items": {"search": 32, "confirm": 64, "group": "group"},
        },
        "optimizer": {"kind": optimizer} | ({"mode": "generation"} if executor == "ray" and not learns else {}),
        "budget": {"item_evaluations": 30 * evaluations} if learns else {"evaluations": evaluations},
        "seed": 11,
    }
    if not learns:
        plain["fitness"] |= {"estimator": {"items": 12, "rungs": [4], "refresh": 0.2}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


def _learned(grain: str) -> dict[str, Any]:
    """What is learned: the genes, few enough for slopes of every item's own, or weights of a grain."""
    return {"groups": "layer"} if grain == "genes" else {"groups": "layer", "grain": grain}


def command(*arguments: object) -> list[str]:
    """The command line of evomerge, in this interpreter."""
    return [sys.executable, "-m", "evomerge", *map(str, arguments)]


def lines(run: Path) -> int:
    """How many whole lines the journal has."""
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def killed(arguments: list[str], run: Path, target: int, rng: random.Random, most: float) -> bool:
    """Start a process and kill it up to so many seconds after the journal has `target` lines; False if it ended."""
    # Ray's helpers try for so long to tell a head that is gone of their end; a minute, if nothing is said.
    environment = os.environ | {"EVOMERGE_KILLED": str(run), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    while process.poll() is None and lines(run) < target:
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, most))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def left(run: Path, seconds: float) -> dict[int, str]:
    """Processes that killed searches left behind and that are still there after so long."""
    ends = time.monotonic() + seconds
    while True:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"EVOMERGE_KILLED={run}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
        if not found or time.monotonic() > ends:
            return found
        time.sleep(0.2)


def story(run: Path) -> tuple[list[Any], bytes]:
    """What a journal says of the search, and marks and scores."""
    found = []
    for line in (run / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)["event"]
        if not EVENT.validate_python(event, strict=False).of_process:
            found.append({key: value for key, value in event.items() if key not in VOLATILE})
    scores = run / "responses/scores.f32"
    return found, (run / "responses/marks.f64").read_bytes() + (scores.read_bytes() if scores.exists() else b"")


def content(run: Path) -> tuple[list[Any], bytes]:
    """What was proposed, scored and believed, in an order that workers have no part in."""
    store = RunStore(run)
    found, marks = [], []
    for event in store.events():
        plain = {key: value for key, value in event.to_plain().items() if key not in (*VOLATILE, "marks", "scores")}
        if isinstance(event, Evaluated):
            marks.append((event.work, store.marks(event), store.scores(event)))
        if not event.of_process:
            found.append(plain)
    store.close()
    # Tellings stay in their order, others are sorted by what they are of.
    found.sort(key=lambda event: (event["kind"], event.get("work", event.get("number", 0))))
    return found, json.dumps(sorted(marks, key=lambda pair: pair[0])).encode()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--optimizer", default="cma")
    parser.add_argument(
        "--grain", default="tensor", help="what gradient learns: genes, or weights by tensor, column or row"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the instants of the kills")
    parser.add_argument("--executor", choices=["inline", "ray"], default="inline")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return judge(Path(temporary), wanted, random.Random(wanted.seed))


def judge(folder: Path, wanted: argparse.Namespace, rng: random.Random) -> int:
    """Search, kill, resume, compare."""
    spec = write_run_file(folder, wanted.optimizer, wanted.evaluations, wanted.executor, wanted.grain)
    alone, run = folder / "alone", folder / "run"
    subprocess.run(command("search", spec, "--out", alone), check=True, capture_output=True)
    total = lines(alone)
    far = ("--executor", "ray", "--workers", "2") if wanted.executor == "ray" else ()
    kills = 0
    for target in sorted(rng.choices(range(1, total), k=wanted.kills)):
        is_begun = (run / "spec.yaml").exists()
        arguments = command("resume", run) if is_begun else command("search", spec, "--out", run, *far)
        # Between two lines of a journal that tells of learning there are many steps.
        kills += killed(arguments, run, max(target, lines(run)), rng, 1.5 if wanted.optimizer == "gradient" else 0.06)
        print(f"kill {kills}: {lines(run)} of {total} lines", flush=True)
    subprocess.run(command("resume", run), check=True, capture_output=True)
    if orphans := left(run, 120):
        print(f"processes are left: {orphans}")
        return 1
    told = content if far else story
    (events, marks), (expected, expected_marks) = told(run), told(alone)
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
