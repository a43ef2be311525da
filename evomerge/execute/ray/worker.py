"""The process that holds a live model: set up once, it answers one work after another."""

import signal
from typing import Protocol

import ray

from evomerge.execute.ray.messages import Ready, packed, unpacked
from evomerge.items import ItemTable
from evomerge.recipe import Parents
from evomerge.trial import Evaluation, Work


class Evaluator(Protocol):
    """What a worker holds: models and items, and how to put one to the other."""

    name: str
    table: ItemTable

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    @property
    def parents(self) -> Parents:
        """The models it merges, by content."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What goes the slow way, and why."""
        ...

    def __call__(self, work: Work) -> Evaluation:
        """Do a work; what goes wrong with its candidate is in the answer, what would with any is raised."""
        ...


class Factory(Protocol):
    """Makes an evaluator in the worker's own process; it is sent there pickled."""

    def build(self) -> Evaluator:
        """Open the models, load the live one."""
        ...

    def beside(self, workers: int, cores: int, gpus: float) -> "Factory":
        """The same for one of so many workers on a machine, each with so many cores and GPUs, or a part of one."""
        ...


class Worker:
    """Ray makes an actor of it. What it raises is told of the worker, never of a candidate."""

    def __init__(self, factory: Factory) -> None:
        # Ctrl-C at a terminal reaches the workers of this machine too; when to stop is the driver's to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._factory = factory
        self._evaluator: Evaluator | None = None

    def here(self) -> None:
        """A sign of life, given before whatever is asked for after it."""

    def start(self) -> bytes:
        """Set everything up; a `Ready`."""
        self._evaluator = made = self._factory.build()
        around = ray.get_runtime_context()
        place = ":".join([around.get_node_id(), *around.get_accelerator_ids().get("GPU", [])])
        return packed(
            Ready(
                name=made.name,
                place=place,
                device=made.device,
                parents=made.parents,
                table=made.table,
                notes=made.notes,
            )
        )

    def evaluate(self, work: bytes) -> bytes:
        """Do a `Work`; an `Evaluation`."""
        assert self._evaluator is not None, "started"
        return packed(self._evaluator(unpacked(Work, work)))
