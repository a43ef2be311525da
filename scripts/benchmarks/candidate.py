"""One candidate of the demo against what today's tools do for it."""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from measure import ROOT, demo_run, table, timed

from evomerge.assemble import search
from evomerge.checkpoint import ParentFiles
from evomerge.evaluate import EvaluatorFactory
from evomerge.export.to_mergekit import to_mergekit
from evomerge.recipe import Recipe
from evomerge.space import bind
from evomerge.trial import Draw

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
            "lean": lambda turn: disk.evaluate(recipe(turn), lean=True),
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

    def evaluate(self, recipe: Recipe, *, lean: bool = False) -> None:
        """Merge, write, load, evaluate, delete; `lean` departs from lm-eval's defaults to save time."""
        import lm_eval
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        configuration = MergeConfiguration.model_validate(to_mergekit(recipe, self.files))
        with tempfile.TemporaryDirectory(dir=self.folder) as out, contextlib.chdir(self.folder), quiet():
            run_merge(configuration, out, MergeOptions(quiet=True))
            lm_eval.simple_evaluate(
                model="hf",
                model_args={"pretrained": out, "dtype": "float32", "device": "cpu"},
                tasks=[self.task],
                task_manager=self.manager,
                samples={self.task: self.indices},
                batch_size=16 if lean else None,
                bootstrap_iters=0 if lean else 100_000,
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
    stamps = [evaluated.elapsed or evaluated.at for evaluated in finished]
    spent = [evaluated.seconds.merge + evaluated.seconds.score for evaluated in finished]
    gaps = [after - before for before, after in pairwise(stamps)]
    return statistics.median(gap - work for gap, work in zip(gaps, spent[1:], strict=True))
