"""An evaluator without models, for tests of whoever runs evaluators."""

import contextlib
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import DeviceError, RunError
from evomerge.execute.ray.worker import Factory
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.recipe import Folder, Parents, Recipe
from evomerge.space import BlendSpec, bind
from evomerge.trial import Draw, Evaluation, Failure, Work

PARENTS = Parents(
    models={name: Folder(path=f"/{name}", digest=f"sha256:{name}") for name in ("one", "other")},
    base=None,
    experts=("one", "other"),
    layers=4,
    outer=(),
    dtype="float32",
)
ITEMS = 40
FAILING = 13
"""The number of the candidate that fails."""


def table() -> ItemTable:
    names = {pool: tuple(f"{pool} {i}" for i in range(ITEMS)) for pool in ("search", "confirm")}
    pools = {name: Pool(ids=ids, clusters=ids) for name, ids in names.items()}
    task = TaskItems(search=pools["search"], confirm=pools["confirm"], metrics={"acc": True})
    return ItemTable(tasks={"task": task})


def recipe() -> Recipe:
    space = bind(BlendSpec.model_validate({"operator": {"kind": "linear"}}), PARENTS)
    return space.decode((0.5,) * len(space.genes))


def work(number: int, draw: Draw | None = None) -> Work:
    return Work(id=number, number=number, recipe=recipe(), draw=draw or Draw(pool="search"), purpose="search")


class Toy:
    """Gives every item its place and the candidate's number for a mark."""

    name = "toy"
    device = "cpu"
    parents = PARENTS
    notes = ()

    def __init__(self) -> None:
        self.table = table()

    def __call__(self, work: Work) -> Evaluation:
        if work.number == FAILING:
            outcome: dict[str, dict[str, tuple[float, ...]]] | Failure = Failure(stage="score", reason="it is a toy")
            scores = None
        else:
            places = range(ITEMS) if work.draw.places is None else work.draw.places["task"]
            outcome = {"task": {"acc": tuple(float(work.number + place) for place in places)}}
            scores = {"task": tuple((float(work.number), float(place)) for place in places)} if work.scored else None
        return Evaluation(work=work.id, number=work.number, outcome=outcome, scores=scores, worker=self.name)


@dataclass(frozen=True)
class Toys:
    """Makes one, here or there."""

    def build(self) -> Toy:
        return Toy()

    def beside(self, workers: int, cores: int, gpus: float) -> Factory:
        return self


SLOW, BREAKING, DEADLY = 100, 200, 300
"""From these numbers on works take seconds (101 one, 102 two), break the device, kill whoever does the first item."""


class Moody(Toy):
    """A toy that takes its time, or breaks down, by the number of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"moody:{os.getpid()}"

    def __call__(self, work: Work) -> Evaluation:
        if work.number >= DEADLY:
            time.sleep(0.5)
            if work.draw.places is None or 0 in work.draw.places["task"]:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3.0)
        elif work.number >= BREAKING:
            raise DeviceError("the device has stopped working (CUDA error); resume in a new process")
        time.sleep(work.number - SLOW if BREAKING > work.number > SLOW else 0.0)
        return super().__call__(work)


@dataclass(frozen=True)
class Moodies:
    """Makes them. With a folder `order`, which is empty at first, the second one to be made takes so many seconds, and
    the first one fails after half as many if it is `broken`.
    """

    seconds: float = 0.0
    order: str = ""
    broken: bool = False

    def build(self) -> Moody:
        place = _place(Path(self.order)) if self.order else -1
        if place == 0 and self.broken:
            time.sleep(self.seconds / 2)
            raise RunError("the device computes no finite numbers")
        time.sleep(self.seconds if place == 1 else 0.0)
        return Moody()

    def beside(self, workers: int, cores: int, gpus: float) -> Factory:
        return self


def _place(folder: Path) -> int:
    """How many came before."""
    for place in itertools.count():
        with contextlib.suppress(FileExistsError):
            (folder / str(place)).mkdir()
            return place
    raise AssertionError("there are enough numbers")


@dataclass(frozen=True)
class Strangers:
    """Makes moody ones, of whom only the first to be made asks what all should ask; in a folder that is empty."""

    order: str

    def build(self) -> Moody:
        made = Moody()
        asked = "this" if _place(Path(self.order)) == 0 else "that"
        task = made.table.tasks["task"]
        search = task.search.model_copy(update={"requests": (asked,) * ITEMS})
        made.table = ItemTable(tasks={"task": task.model_copy(update={"search": search})})
        return made

    def beside(self, workers: int, cores: int, gpus: float) -> Factory:
        return self
