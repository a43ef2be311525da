"""What the benchmarks share: timing, tables, runs over the demo's models."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from evomerge.spec import RunSpec, load_run

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "evomerge/demo/models"


def timed(contestants: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each contestant, after one warm-up; each call is given its round."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            started = time.process_time()
            contestant(turn)
            if turn:
                found[name].append(time.process_time() - started)
    return {name: statistics.median(times) for name, times in found.items()}


def table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns under a title."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def demo_run(folder: Path, fitness: str, optimizer: str, evaluations: int, seed: int) -> RunSpec:
    """A run over the demo's models."""
    experts = ("maths", "japanese", "lists") if fitness == "demo" else ("maths", "japanese")
    plain = {
        "models": {"base": str(MODELS / "base"), "experts": {name: str(MODELS / name) for name in experts}},
        "space": "per-layer",
        "fitness": fitness,
        "optimizer": {"kind": optimizer},
        "budget": {"evaluations": evaluations},
        "seed": seed,
    }
    path = folder / f"{Path(fitness).stem}-{seed}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return load_run(path)
