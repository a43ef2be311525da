"""Benchmarks: the merge kernels, one candidate against what today's tools do, the start of the command line.

    scripts/bench [operators] [candidate] [start] [demo]

Times are CPU seconds of one thread, rounds of the competitors interleaved, medians; what is quoted are ratios within
one run, since machines are noisy. `demo` is left out unless it is named: five seeds of the demo's two searches.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

from evomerge.assemble import search
from evomerge.checkpoint import ParentFiles
from evomerge.evaluate import EvaluatorFactory
from evomerge.export.to_mergekit import to_mergekit
from evomerge.materialize import Merger
from evomerge.materialize.statistics import Statistics
from evomerge.recipe import Blend, DareTies, Linear, Operator, Recipe, Slerp, Source, TaskArithmetic, Ties
from evomerge.space import bind
from evomerge.spec import RunSpec, load_run
from evomerge.trial import Draw

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "evomerge/demo/models"
SIDE = 4096
EXPERTS = 3


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


class OneTensor(Merger):
    """A merger over one large tensor and a few sets of parents, so that no round finds its inputs in the cache."""

    def __init__(self, *, compiled: bool, sets: int = 3) -> None:
        self.device = torch.device("cpu")
        self.compiled = compiled
        generator = torch.Generator().manual_seed(0)
        self.sets: list[dict[str, torch.Tensor]] = []
        for _ in range(sets):
            base = torch.randn(SIDE * SIDE, generator=generator) * 0.02
            models = {"base": base.bfloat16()}
            for i in range(EXPERTS):
                models[f"e{i}"] = (base + torch.randn(SIDE * SIDE, generator=generator) * 5e-4).bfloat16()
            self.sets.append(models)
        self.here = 0
        self._statistics = Statistics(self._read)

    def _read(self, parent: str, layer: int | None, name: str) -> torch.Tensor:  # noqa: ARG002
        return self.sets[self.here][parent]

    def _key(self, source: Source, name: str, seed: int) -> int:  # noqa: ARG002
        return int(source.parent[1:]) * 7919

    def blend(self, recipe: Any, name: str) -> Blend:  # noqa: ARG002
        """The blend itself stands for the recipe."""
        found: Blend = recipe.blend
        return found


class Given:
    """Just enough of a recipe: one blend."""

    dtype = "bfloat16"
    seed = 0

    def __init__(self, operator: Operator) -> None:
        count = 2 if isinstance(operator, Slerp) else EXPERTS
        sources = tuple(Source(parent=f"e{i}", weight=0.4 + 0.2 * i, density=0.5) for i in range(count))
        needs_base = not isinstance(operator, Linear | Slerp)
        self.blend = Blend(operator=operator, base=Source(parent="base") if needs_base else None, sources=sources)


def bench_operators() -> None:
    """Merging one 4096 x 4096 bf16 tensor of three experts, as multiples of copying it."""
    operators: dict[str, Operator] = {
        "linear": Linear(),
        "slerp": Slerp(t=0.4),
        "task_arithmetic": TaskArithmetic(),
        "ties": Ties(),
        "dare_ties": DareTies(),
    }
    compiled, eager = OneTensor(compiled=True), OneTensor(compiled=False)
    outs = [torch.empty(SIDE * SIDE, dtype=torch.bfloat16) for _ in range(3)]

    def merging(merger: OneTensor, operator: Operator) -> Callable[[int], None]:
        recipe: Any = Given(operator)

        def run(turn: int) -> None:
            merger.here = turn % len(merger.sets)
            merger.write(recipe, f"set {merger.here}", outs[turn % 3])

        for turn in range(len(merger.sets)):  # Thresholds and angles are found once a search, not once a candidate.
            run(turn)
        return run

    def copying(turn: int) -> None:
        outs[turn % 3].copy_(compiled.sets[turn % 3]["e0"])

    contestants = {"copy": copying} | {name: merging(compiled, operator) for name, operator in operators.items()}
    fast = timed(contestants, 15)
    slow = timed({name: merging(eager, operator) for name, operator in operators.items()}, 3)
    features = " ".join(flag for flag in ("avx512f", "avx2") if flag in Path("/proc/cpuinfo").read_text())
    rows: list[Sequence[object]] = [("operator", "ms", "x copy", "x copy, chunked eager")]
    for name, seconds in fast.items():
        rows.append((name, seconds * 1e3, seconds / fast["copy"], slow[name] / fast["copy"] if name in slow else ""))
    table(f"operators: {SIDE} x {SIDE} bf16, base and {EXPERTS} experts, one thread, {features}", rows)


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


GENERATION = """
task: math_ja_generated
dataset_path: json
dataset_kwargs: {data_files: {test: math_ja.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: " {{answer}}"
generation_kwargs: {until: ["</s>"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def bench_candidate() -> None:
    """One candidate of the demo, here and as today's tools do it: merge to disk, load, `simple_evaluate`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("math_ja.yaml", "math_ja.jsonl"):
            shutil.copy(ROOT / "fitness/demo" / name, folder)
        (folder / "generated.yaml").write_text(GENERATION)
        overhead = measure_overhead(folder)
        for task, metric in (("math_ja", "acc"), ("math_ja_generated", "exact_match")):
            compare_candidate(folder, task, metric)
    table("a candidate outside merging and scoring", [("median wall ms", overhead * 1e3)])


def compare_candidate(folder: Path, task: str, metric: str) -> None:
    """The same recipes on the same items, three ways."""
    items = {"search": 160, "confirm": 1000, "group": "group"}
    fitness = {"include": ["."], "objectives": {task: {"task": task, "metric": metric}}, "items": items}
    (folder / f"{task}-fitness.yaml").write_text(yaml.safe_dump(fitness))
    run = demo_run(folder, str(folder / f"{task}-fitness.yaml"), "cma", 10, 1)
    evaluator = EvaluatorFactory(run.models, run.fitness, run.seed, "cpu").build()
    files = evaluator.live.files
    space = bind(run.space, files.parents)
    scorer: Any = evaluator.scorer
    bank = scorer._banks[task]
    indices = sorted(bank.items[key].index for key in bank.table.search.ids)
    disk = Disk(task, indices, files, folder)

    def recipe(turn: int) -> Recipe:
        return space.decode(tuple((0.37 + 0.11 * turn + 0.23 * i) % 1.0 for i in range(len(space.genes))))

    found = timed(
        {
            "evomerge": lambda turn: evaluator.marks(recipe(turn), Draw(pool="search")),
            "defaults": lambda turn: disk.evaluate(recipe(turn)),
            "lean": lambda turn: disk.evaluate(recipe(turn), batch_size=16, bootstrap_iters=0),
        },
        7,
    )
    ours = found["evomerge"]
    rows: list[Sequence[object]] = [
        ("", "CPU s", "ratio"),
        ("evomerge: merge into the resident model, score", ours, 1.0),
        ("mergekit to disk, simple_evaluate with a prepared TaskManager", found["defaults"], found["defaults"] / ours),
        ("the same, batches of 16 and no bootstrap", found["lean"], found["lean"] / ours),
    ]
    table(f"candidate: per-layer merge of the demo's two experts, {len(indices)} items of {task}", rows)


class Disk:
    """What today's tools do for a candidate, in one process that has its tasks indexed."""

    def __init__(self, task: str, indices: list[int], files: ParentFiles, folder: Path) -> None:
        from lm_eval.tasks import TaskManager

        self.task, self.indices, self.files, self.folder = task, indices, files, folder
        self.manager = TaskManager(include_path=str(folder), include_defaults=False)

    def evaluate(self, recipe: Recipe, **arguments: Any) -> None:
        """Merge, write, load, evaluate, delete."""
        import lm_eval
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        configuration = MergeConfiguration.model_validate(to_mergekit(recipe, self.files.anatomy))
        with tempfile.TemporaryDirectory(dir=self.folder) as out, contextlib.chdir(self.folder), quiet():
            run_merge(configuration, out, MergeOptions(quiet=True))
            lm_eval.simple_evaluate(
                model="hf",
                model_args={"pretrained": out, "dtype": "float32", "device": "cpu"},
                tasks=[self.task],
                task_manager=self.manager,
                samples={self.task: self.indices},
                **arguments,
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Other tools' progress bars and logs go nowhere, those of their child processes neither."""
    sys.stdout.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        for stream, _ in kept:
            os.dup2(nowhere.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            for stream, copy in kept:
                os.dup2(copy, stream)
                os.close(copy)


def measure_overhead(folder: Path) -> float:
    """Median wall seconds a candidate takes outside merging and scoring: asking, decoding, journal, telling."""
    results = search(demo_run(folder, "demo-maths", "cma", 120, 2), folder / "overhead")
    finished = results.state.finished()
    stamps = [evaluated.at for evaluated in finished]
    spent = [evaluated.seconds.merge + evaluated.seconds.score for evaluated in finished]
    gaps = [after - before for before, after in pairwise(stamps)]
    return statistics.median(gap - work for gap, work in zip(gaps, spent[1:], strict=True))


def bench_start() -> None:
    """`evomerge --help` in a fresh process, files in the page cache."""
    walls = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evomerge", "--help"], check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
    table("start", [("evomerge --help, median wall seconds", statistics.median(walls))])


def bench_demo() -> None:
    """Five seeds of the demo's two searches: gains over what needs no search, on held-out items."""
    rows: list[Sequence[object]] = [
        ("seed", "best", "minus parent", "minus fixed", "fixed", "front HV", "fixed HV", "s")
    ]
    gains = []
    for seed in (1, 2, 3, 4, 5):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            started = time.perf_counter()
            one = search(demo_run(folder, "demo-maths", "cma", 300, seed), folder / "one")
            two = search(demo_run(folder, "demo", "nsga2", 300, seed), folder / "two")
            seconds = time.perf_counter() - started
        best = one.best
        assert best is not None
        assert best.confirmed is not None
        label = one.objectives[0]
        (_, parent), (rival, fixed) = one.best_parent(best)[label], one.best_fixed(best)[label]
        volumes = two.hypervolumes() or {}
        gains.append(fixed[0])
        pairs = [f"{value:.3f} ±{error:.3f}" for value, error in (best.confirmed[label], parent, fixed)]
        rows.append((seed, *pairs, rival, volumes["front"], volumes["fixed"], round(seconds)))
        print(rows[-1], flush=True)
    table(f"demo: five seeds, mean gain over the best fixed recipe {statistics.mean(gains):.3f}", rows)


BENCHMARKS = {"operators": bench_operators, "candidate": bench_candidate, "start": bench_start, "demo": bench_demo}


def main() -> None:
    """Run what is named, or all but the long one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all but demo if none")
    names = parser.parse_args().names or [name for name in BENCHMARKS if name != "demo"]
    torch.set_num_threads(1)
    for name in names:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
