"""Calibrate the demo's items on random merges of its own models.

    scripts/calibrate_demo [--merges N] [--seed S] [--responses FOLDER] [--out FILE]

scores the fixed recipes (parents, averages, common weights) and random points of the space `per-layer` on every
document of both tasks, fits the items, and writes fitness/demo/calibration.npz. With --responses it leaves what was
answered as FOLDER/TASK.csv, from which `evomerge calibrate FOLDER/*.csv --out FILE` makes the same calibration. Some
five minutes on one core.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from evomerge.assemble import Listener, calibrate
from evomerge.estimate.panel import Panel, write_csv
from evomerge.evaluate import Evaluator, EvaluatorFactory
from evomerge.recipe import Recipe
from evomerge.space import SearchSpace, bind, fixed_recipes
from evomerge.spec import RunSpec, load_run
from evomerge.trial import Draw

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "evomerge/demo/models"
EXPERTS = ("maths", "japanese", "lists")
DOCUMENTS = {"lists": 1000, "math_ja": 1400}
METRIC = "acc"
LEADING = (0.5, 1.25)
"""The range of mean weights of experts; merges of three at full weight know nothing, and tell nothing of items."""
LEAST = (0.0, 0.5)
"""That of one expert of each merge."""
UNEVEN = 0.12
"""How much the weights of an expert differ from layer to layer, as a standard deviation."""


def demo_run(folder: Path, task: str, seed: int) -> RunSpec:
    """The demo's models on all documents of a task: one to confirm, the others to search on."""
    plain = {
        "models": {"base": str(MODELS / "base"), "experts": {name: str(MODELS / name) for name in EXPERTS}},
        "space": "per-layer",
        "fitness": {
            "include": [str(ROOT / "fitness/demo")],
            "objectives": {task: {"task": task, "metric": METRIC}},
            "items": {"search": DOCUMENTS[task] - 1, "confirm": 1},
        },
        "budget": {"evaluations": 1},
        "seed": seed,
    }
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return load_run(path)


def random_merges(space: SearchSpace, count: int, seed: int) -> dict[str, Recipe]:
    """Merges by name, each with a weight of its own for every expert, varied from layer to layer."""
    experts = np.array([EXPERTS.index(gene.name.split(".")[0]) for gene in space.genes])
    low, high = -0.25, 1.5
    found = {}
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        means = rng.uniform(*LEADING, len(EXPERTS))
        means[rng.integers(len(EXPERTS))] = rng.uniform(*LEAST)
        weights = means[experts] + rng.normal(0, UNEVEN, len(experts))
        genome = np.clip((weights - low) / (high - low), 0, 1)
        found[f"merge {number}"] = space.decode(tuple(float(gene) for gene in genome))
    return found


def answers(evaluator: Evaluator, recipes: Mapping[str, Recipe], task: str) -> Panel:
    """What every recipe answers on every document."""
    table = evaluator.scorer.table.tasks[task]
    rows = []
    for recipe in recipes.values():
        pools = [evaluator.marks(recipe, Draw(pool=pool))[task][METRIC] for pool in ("search", "confirm")]
        rows.append(np.concatenate(pools))
    return Panel(tuple(recipes), (*table.search.ids, *table.confirm.ids), np.array(rows))


def make_responses(folder: Path, merges: int, seed: int) -> list[Path]:
    """Score everything; one csv file a task."""
    paths = []
    for task in DOCUMENTS:
        run = demo_run(folder, task, seed)
        evaluator = EvaluatorFactory(run.models, run.fitness, run.seed, "cpu").build()
        parents = evaluator.live.files.parents
        recipes = fixed_recipes(parents) | random_merges(bind(run.space, parents), merges, seed)
        started = time.monotonic()
        panel = answers(evaluator, recipes, task)
        scores = panel.marks.mean(axis=1)
        print(
            f"{task}: {len(recipes)} models on {len(panel.items)} items in {time.monotonic() - started:.0f} s;"
            f" accuracies {', '.join(f'{score:.2f}' for score in np.quantile(scores, [0, 0.25, 0.5, 0.75, 1]))}"
            " (quartiles)",
            flush=True,
        )
        paths.append(folder / f"{task}.csv")
        write_csv(paths[-1], panel)
    return paths


def main() -> None:
    """Score, fit, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--merges", type=int, default=120, help="random merges beside the fixed recipes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--responses", type=Path, help="a folder to leave what was answered in")
    parser.add_argument("--out", type=Path, default=ROOT / "fitness/demo/calibration.npz")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.responses or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = make_responses(folder, wanted.merges, wanted.seed)
        calibration = calibrate(paths, wanted.out, force=True, listener=Listener(print))
    print("\n".join([*calibration.lines(), f"wrote {wanted.out}: {wanted.out.stat().st_size} bytes"]))


if __name__ == "__main__":
    main()
