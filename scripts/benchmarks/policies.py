"""The demo's search by the default estimator and by the mean on a fixed subset, at an equal budget of items."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from measure import demo_run, table

from evomerge.estimate import Appraiser, Grader, Ledger
from evomerge.events import Assigned, Evaluated, Told
from evomerge.results import RunState, read_into
from evomerge.schedule import Draws, Policy
from evomerge.store import RunStore

SEEDS = (1, 2, 3, 4, 5)
ITEM_EVALUATIONS = 13_000
"""About 300 candidates on 40 items each, after the parents."""
POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "mean, fixed items": {"kind": "mean", "rotate": False, "refresh": 0.0},
}


def bench_policies() -> None:
    """Both searches by the command line, for five seeds; confirmed values, and what estimating cost."""
    rows: list[Sequence[object]] = [("seed", "policy", "confirmed", "minus best fixed", "search said", "estimating")]
    gains: dict[str, list[float]] = {name: [] for name in POLICIES}
    for seed in SEEDS:
        for name, estimator in POLICIES.items():
            with tempfile.TemporaryDirectory() as temporary:
                row, gain = _searched(Path(temporary), estimator, seed)
            gains[name].append(gain)
            rows.append((seed, name, *row))
            print(*rows[-1], flush=True)
    means = ", ".join(f"{name} {statistics.mean(values):.3f}" for name, values in gains.items())
    table(f"policies: {ITEM_EVALUATIONS:,} item evaluations each; mean gain over the best fixed recipe: {means}", rows)


def _searched(folder: Path, estimator: dict[str, Any], seed: int) -> tuple[Sequence[object], float]:
    """A search's line in the table, and its gain."""
    plain = demo_run(folder, "demo-maths", "cma", 100_000, seed).to_plain()
    plain["fitness"]["estimator"] = estimator
    plain["budget"] = {"item_evaluations": ITEM_EVALUATIONS}
    (folder / "run.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    run = folder / "RUN"
    command = [sys.executable, "-m", "evomerge"]
    subprocess.run([*command, "search", str(folder / "run.yaml"), "--out", str(run)], check=True, capture_output=True)
    shown = subprocess.run([*command, "show", str(run), "--json"], check=True, capture_output=True)
    found = json.loads(shown.stdout)
    best = next(entry for entry in found["front"] if entry["number"] == found["best"])
    (label,) = found["objectives"]
    value, error = best["confirmed"][label]
    gain, doubt = best["paired"]["best_fixed"][label]
    said = f"{best['search'][label][0]:.3f}"
    return (f"{value:.3f} ±{error:.3f}", f"{gain:+.3f} ±{doubt:.3f}", said, f"{layer_share(run):.1%}"), gain


def layer_share(run: Path) -> float:
    """What drawing items, estimating and choosing elites take beside merging and scoring.

    The journal is gone through again with the parts that a search has.
    """
    store = RunStore(run)
    fitness, state = store.file.spec.fitness, RunState(store.file.spec.budget)
    appraiser = Appraiser(Grader(fitness, store.table), Ledger(store.table), store.calibration)
    draws = Draws(appraiser, fitness.estimator, store.file.spec.seed)
    policy, latest, spent = Policy(appraiser, draws, fitness.estimator, fitness.scalar), 0, 0.0
    started = time.process_time()
    for event in store.events():
        state.apply(event)
        read_into(appraiser.ledger, event, state, store)
        match event:
            case Evaluated() if state.works[event.work].draw.pool == "search":
                spent += event.seconds.merge + event.seconds.score
            case Assigned() if event.draw.generation is not None:
                latest = event.draw.generation
                policy.first(latest)
            case Told():
                numbers = [o.number for o in event.observations if o.number is not None]
                policy.more(numbers, latest)
                appraiser.observe(numbers)
    return (time.process_time() - started) / spent
