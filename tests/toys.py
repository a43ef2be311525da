"""An evaluator without models, for tests of whoever runs evaluators."""

from dataclasses import dataclass

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
        else:
            places = range(ITEMS) if work.draw.places is None else work.draw.places["task"]
            outcome = {"task": {"acc": tuple(float(work.number + place) for place in places)}}
        return Evaluation(work=work.id, number=work.number, outcome=outcome, worker=self.name)


@dataclass(frozen=True)
class Toys:
    """Makes one, here or there."""

    def build(self) -> Toy:
        return Toy()

    def beside(self, workers: int, cores: int, gpus: float) -> Factory:
        return self
