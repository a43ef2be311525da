"""Learned coefficients of the demo: what five seeds come to, of one skill and of two, by item evaluations."""

import statistics
import tempfile
import time
from pathlib import Path

import yaml
from measure import MODELS, table

from evomerge.assemble import search
from evomerge.results import Results
from evomerge.spec import RunSpec, load_run

SEEDS = (1, 2, 3, 4, 5)
CASES = (
    ("demo-maths", "tensor", 12_500),
    ("demo-maths", "column", 12_500),
    ("demo", "column", 24_000),
    ("demo", "column", 12_000),
    ("demo", "column", 6_000),
)


def bench_learned() -> None:
    """Confirmed accuracy of the best of one objective; hypervolume of the confirmed front of two."""
    rows: list[tuple[object, ...]] = [("fitness", "grain", "units", "mean", "sd", "each", "fixed", "wall s")]
    for fitness, grain, units in CASES:
        found, fixed, started = [], 0.0, time.perf_counter()
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as temporary:
                results = search(_run(Path(temporary), fitness, grain, units, seed), Path(temporary) / "run")
                value, fixed = _measured(results)
            found.append(value)
            print(fitness, grain, units, seed, f"{value:.3f}", flush=True)
        each = " ".join(f"{value:.3f}" for value in found)
        mean, spread = statistics.mean(found), statistics.stdev(found)
        seconds = (time.perf_counter() - started) / len(SEEDS)
        rows.append((fitness, grain, units, f"{mean:.3f}", f"{spread:.3f}", each, f"{fixed:.3f}", f"{seconds:.0f}"))
    table("learned: the demo's skills, on held-out items", rows)


def _measured(results: Results) -> tuple[float, float]:
    """What was found, and what fixed recipes come to."""
    if (volumes := results.hypervolumes()) is not None:
        return volumes["front"], volumes["fixed"]
    label, best = results.objectives[0], results.best
    assert best is not None and best.confirmed is not None, "the search has finished"
    fixed = max(row.confirmed[label][0] for row in results.baselines if row.confirmed is not None)
    return best.confirmed[label][0], fixed


def _run(folder: Path, fitness: str, grain: str, units: int, seed: int) -> RunSpec:
    experts = ("maths", "japanese", "lists") if fitness == "demo" else ("maths", "japanese")
    plain = {
        "models": {"base": str(MODELS / "base"), "experts": {name: str(MODELS / name) for name in experts}},
        "space": {"groups": "model", "grain": grain, "weight": [-0.5, 2.0]},
        "fitness": fitness,
        "budget": {"item_evaluations": units},
        "seed": seed,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return load_run(path)
