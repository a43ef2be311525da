"""What Ray costs: seconds of a work beside itself, what stays behind of many, memory of one more worker."""

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import MODELS, table

from evomerge.evaluate import EvaluatorFactory
from evomerge.execute.ray import Evaluator, Factory, RayExecutor
from evomerge.fitness import Fitness
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.recipe import Parents, Recipe
from evomerge.space import BlendSpec, bind, unchanged
from evomerge.spec import Models, RaySpec
from evomerge.trial import Draw, Evaluation, Work

ITEMS = Pool(ids=tuple(map(str, range(32))), clusters=tuple(map(str, range(32))))
TABLE = ItemTable(tasks={"norms": TaskItems(search=ITEMS, confirm=ITEMS, metrics={"a": True})})
MARKS = {"norms": {"a": tuple(float(i) for i in range(32))}}
MIB = 2**20


@dataclass
class Idle:
    """Answers at once; it is its own factory."""

    parents: Parents
    name: str = ""
    device: str = "cpu"
    notes: tuple[str, ...] = ()
    table: ItemTable = TABLE

    def build(self) -> Evaluator:
        """Itself, called by its process."""
        return Idle(self.parents, f"here:{os.getpid()}")

    def beside(self, workers: int, cores: int, gpus: float) -> Factory:  # noqa: ARG002  It has nothing to share.
        """Itself."""
        return self

    def __call__(self, work: Work) -> Evaluation:
        """The same marks for anybody."""
        return Evaluation(work=work.id, number=work.number, outcome=MARKS, worker=self.name)


@dataclass
class Touching:
    """A scorer that reads all weights of the live model."""

    items: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"norms": ITEMS.ids})

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:  # noqa: ARG002
        """One number for every item."""
        size = sum(float(weight.float().square().sum()) for weight in model.parameters())
        return {"norms": {"a": [size % 1] * len(items["norms"])}}


@dataclass(frozen=True)
class Standing:
    """What a driver holds, and what runs beside it."""

    megabytes: float
    files: int
    threads: int
    workers: int
    own: float


def standing(pids: Sequence[int]) -> Standing:
    """Of this process and its workers, now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(list(Path("/proc/self/fd").iterdir()))
    own = max(memory(pid, MODELS)["own"] for pid in pids)
    return Standing(int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]), len(workers_here()), own)


def workers_here() -> list[int]:
    """Workers of this driver: children of the node's daemon, which is its child."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            daemon = parent_of(folder)
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker") and parent_of(daemon).name == str(
                os.getpid()
            ):
                found.append(int(folder.name))
    return found


def parent_of(folder: Path) -> Path:
    """The process that started one, in /proc."""
    return folder.parent / (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]


def pids_of(executor: RayExecutor) -> list[int]:
    """Its workers, once all are there."""
    return [int(member.name.rsplit(":", 1)[1]) for member in executor.pool.ready]


def done(executor: RayExecutor, recipes: Sequence[Recipe], count: int) -> list[float]:
    """Have so many works done one after another; the seconds between handing over and having the result."""
    found = []
    for number in range(count):
        recipe = recipes[number % len(recipes)]
        started = time.perf_counter()
        executor.submit(Work(id=number, number=number, recipe=recipe, draw=Draw(pool="search"), purpose="search"))
        while not any(isinstance(each, Evaluation) for each in executor.wait(None)):
            pass
        found.append(time.perf_counter() - started)
    return found


def soak(count: int, early: int) -> tuple[float, Standing, Standing]:
    """Median seconds of trivial works, and how things stood after the first and after all of them."""
    models = Models(base=str(MODELS / "base"), experts={"maths": str(MODELS / "maths")})
    fitness = Fitness.model_validate({"objectives": {"a": {"task": "norms", "metric": "a"}}})
    parents = EvaluatorFactory(models, fitness, 1, "cpu").open().parents
    executor = RayExecutor(RaySpec(workers=2), Idle(parents), parents, lambda _: None)
    try:
        recipes = [unchanged(parents, "base")]
        seconds = done(executor, recipes, early)
        before = standing(pids_of(executor))
        seconds += done(executor, recipes, count - early)
        return statistics.median(seconds), before, standing(pids_of(executor))
    finally:
        executor.close()


def write_models(folder: Path) -> int:
    """Four models of random weights, and the bytes of them all."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512, hidden_size=768, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=12
    )
    for seed in range(4):
        torch.manual_seed(seed)
        place = folder / f"model-{seed}"
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(place)
        for path in (MODELS / "base").glob("*token*"):
            shutil.copy(path, place)
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def memory(pid: int, folder: Path) -> dict[str, float]:
    """MiB of a process: its own, its share of everything; of the parents' files what is mapped, and what was copied."""
    rows = {"own": 0.0, "share": 0.0, "mapped": 0.0, "copied": 0.0}
    is_parent = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_parent = str(folder) in line
        elif name in ("Private_Clean:", "Private_Dirty:"):
            rows["own"] += (not is_parent) * int(rest[0]) / 1024
        elif name == "Anonymous:":
            rows["copied"] += is_parent * int(rest[0]) / 1024
        elif name in ("Pss:", "Rss:"):
            rows["share"] += (name == "Pss:") * int(rest[0]) / 1024
            rows["mapped"] += is_parent * (name == "Rss:") * int(rest[0]) / 1024
    return rows


@contextlib.contextmanager
def merging(folder: Path, workers: int) -> Iterator[list[int]]:
    """Workers that have merged all layers of all parents; their process ids."""
    experts: dict[str, str | Recipe] = {f"e{i}": str(folder / f"model-{i}") for i in (1, 2, 3)}
    models = Models(base=str(folder / "model-0"), experts=experts)
    fitness = Fitness.model_validate({"objectives": {"a": {"task": "norms", "metric": "a"}}})
    factory = EvaluatorFactory(models, fitness, 1, "cpu", scorer=Touching())
    parents = factory.open().parents
    space = bind(BlendSpec(), parents)
    recipes = [space.decode(tuple((0.1 + 0.37 * i * k) % 1 for i in range(len(space.genes)))) for k in range(1, 7)]
    executor = RayExecutor(RaySpec(workers=workers), factory, parents, lambda _: None)
    try:
        while len(executor.pool.ready) < workers:
            done(executor, recipes, 1)
        for number, recipe in enumerate(recipes * workers):
            executor.submit(Work(id=number, number=0, recipe=recipe, draw=Draw(pool="search"), purpose="search"))
        left = len(recipes) * workers
        while left:
            left -= sum(isinstance(each, Evaluation) for each in executor.wait(None))
        yield pids_of(executor)
    finally:
        executor.close()


def bench_ray() -> None:
    """All of it."""
    median, before, after = soak(2000, 200)
    table("a trivial work on Ray, one after another", [("median ms from handing over to result", median * 1e3)])
    head = ("after", "driver MiB", "files", "threads", "workers", "a worker's own MiB")
    stood = [
        (count, at.megabytes, at.files, at.threads, at.workers, at.own) for count, at in ((200, before), (2000, after))
    ]
    table("what stays behind", [head, *stood])
    rows: list[Sequence[object]] = [("workers", "parents", "own beside them", "Pss", "of them mapped", "copied")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_models(folder) / MIB
        for workers in (1, 2):
            with merging(folder, workers) as pids:
                for row in (memory(pid, folder) for pid in pids):
                    rows.append((workers, size, row["own"], row["share"], row["mapped"], row["copied"]))
    table("memory of each worker, MiB", rows)


if __name__ == "__main__":
    bench_ray()
