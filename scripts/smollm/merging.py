"""A merge of two experts trained here, one for articles of German nouns and one for their meaning."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from experts import Job, train_expert
from questions import ask
from steps import conclude, make_base, search, step, whole
from tasks import fetch_dictionary, write_tasks

EXAMPLES = {"de_gender": 3200, "de_en": 2560}
"""The experts, each named after its task, and how many of its items it is trained on, once."""
RUN_FILE = """\
# Two experts of SmolLM2-135M-Instruct: one knows the articles of German nouns, one what the nouns mean.
models:
  base: models/base
  experts:
    de_gender: {path: models/de_gender, objective: gender}
    de_en: {path: models/de_en, objective: english}
space:
  kind: blend
  operator: task_arithmetic
  groups: model                        # where learning begins: the same weights in all layers
  grain: tensor                        # what is learned: a weight for each expert and tensor
  outer: join                          # the adapters left embeddings and norms alone
  weight: [-0.5, 2.0]
fitness:
  include: [tasks]
  objectives:
    gender: {task: de_gender, metric: acc}
    english: {task: de_en, metric: acc}
  items: {search: 384, confirm: 600, group: noun}
start: [regmean]                       # experts rewritten to agree with each other, by items without their answers
optimizer: {kind: gradient, front: false}    # one model that is good at both, not a front
budget: {item_evaluations: 6000}       # as much as ten candidates put to 300 items of each task
seed: 7
"""


def merge_story(out: Path) -> None:
    """Do what is not done yet."""
    make_base(out)
    make_tasks(out)
    make_experts(out)
    search(out, RUN_FILE)
    conclude(out, "best")
    with step("nouns that no model was trained on, put to it by stock transformers"):
        folders = {name: out / "models" / name for name in ("base", *EXAMPLES)}
        ask({**folders, "merged": out / "merged"}, out / "tasks")


def make_tasks(out: Path) -> None:
    """The two benchmarks."""
    dictionary = out / "sources/de-en"
    with step("two benchmarks, out of a dictionary", out / "tasks") as missing:
        if missing and not dictionary.exists():
            fetch_dictionary(dictionary)
        if missing:
            whole(out / "tasks", lambda folder: write_tasks(folder, dictionary))


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
