"""What counts as better, declared: objectives over benchmark tasks, and the items they are measured on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from evomerge.values import Value

Direction: TypeAlias = Literal["max", "min"]
Bounds: TypeAlias = Sequence[tuple[float, float]]
"""Worst and best known value of each objective, signed so that higher is better."""


class TieBreak(Value):
    """A second metric of the same task, added to what the optimiser is told and never reported.

    The task's higher-is-better decides the sign, so `weight` is positive.
    """

    metric: str
    weight: float = Field(gt=0)


class Objective(Value):
    """One thing to be good at: a metric of a task, or its mean over several tasks.

    `metric` is written as lm-eval prints it, with a filter after a comma where a task has several
    (`exact_match,strict-match`); left out, it is the task's first. `direction` defaults to the metric's own.
    """

    task: str | None = None
    tasks: tuple[str, ...] = ()
    metric: str | None = None
    weight: float = Field(1.0, gt=0)
    direction: Direction | None = None
    fewshot: int | None = Field(None, ge=0)
    chat_template: bool = False
    system: str | None = None
    generation: dict[str, Any] | None = None
    tie_break: TieBreak | None = None

    @model_validator(mode="after")
    def _names_tasks(self) -> Self:
        if (self.task is None) == (not self.tasks):
            raise ValueError("needs either task: NAME or tasks: [NAME, ...]")
        return self

    def task_names(self) -> tuple[str, ...]:
        """The tasks whose mean this is."""
        return self.tasks or (str(self.task),)


class Items(Value):
    """How many items of each task a search sees, and how many it is confirmed on; never the same ones.

    They are chosen by a hash of the document, or of its field `group`, which also clusters standard errors.
    Left out, the numbers shrink for a task that has not enough; written down, they are insisted on.
    """

    search: int | None = Field(None, ge=1)
    confirm: int | None = Field(None, ge=1)
    group: str | None = None


def bounds_of(points: Iterable[Sequence[float]]) -> Bounds:
    """The bounds of these points; none of none."""
    return [(min(column), max(column)) for column in zip(*points, strict=True)]


class Fitness(Value):
    """Objectives, the items they are measured on, and how several objectives become one number.

    `include` names folders of lm-eval task files; stock tasks need none.
    """

    include: tuple[str, ...] = ()
    objectives: dict[str, Objective] = Field(min_length=1)
    items: Items = Items()
    scalarisation: Literal["weighted_sum", "chebyshev"] = "weighted_sum"

    def uses(self) -> dict[str, "TaskUse"]:
        """Every task as it is put to a model, under a name of its own, each once."""
        named: dict[str, TaskUse] = {}
        for objective in self.objectives.values():
            for task in objective.task_names():
                use = TaskUse.of(objective, task)
                if use not in named.values():
                    copies = sum(other.task == task for other in named.values())
                    named[f"{task} #{copies + 1}" if copies else task] = use
        return named

    def scalar(self, utilities: Sequence[float], bounds: Bounds) -> float:
        """All objectives as one number, higher is better.

        Chebyshev is the augmented one (Steuer & Choo 1983), measured from the best known of each objective and in
        shares of its known range, so that one that varies little counts as much as one that varies a lot.
        """
        weights = [objective.weight for objective in self.objectives.values()]
        if self.scalarisation == "weighted_sum":
            return sum(w * u for w, u in zip(weights, utilities, strict=True)) / sum(weights)
        shares = [(best - u) / ((best - worst) or 1.0) for (worst, best), u in zip(bounds, utilities, strict=True)]
        gaps = [weight * share for weight, share in zip(weights, shares, strict=True)]
        return -max(gaps) - 0.05 * sum(gaps)

    def keys(self, objective: str) -> tuple[str, ...]:
        """Names, in `uses`, of the tasks of one objective."""
        named = self.uses()
        wanted = [TaskUse.of(self.objectives[objective], task) for task in self.objectives[objective].task_names()]
        return tuple(name for use in wanted for name, other in named.items() if other == use)


class TaskUse(Value):
    """A task together with all that shapes its prompts: two objectives that agree in these share their marks."""

    task: str
    fewshot: int | None
    chat_template: bool
    system: str | None
    generation: dict[str, Any] | None

    @classmethod
    def of(cls, objective: Objective, task: str) -> Self:
        """How `objective` puts `task` to a model."""
        return cls(
            task=task,
            fewshot=objective.fewshot,
            chat_template=objective.chat_template,
            system=objective.system,
            generation=objective.generation,
        )


class Pool(Value):
    """Items in a fixed order, and for each the cluster it shares its error with."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]


class TaskItems(Value):
    """One task's items, split by hash, and its metrics with whether higher is better."""

    search: Pool
    confirm: Pool
    metrics: dict[str, bool]

    def pool(self, name: str) -> Pool:
        """The pool `search` or `confirm`."""
        return self.search if name == "search" else self.confirm

    def metric(self, name: str | None) -> str | None:
        """A metric as the task names it: its first if none is asked for, with its first filter if none is given."""
        if name is None or name in self.metrics:
            return name or next(iter(self.metrics), None)
        return next((known for known in self.metrics if known.split(",")[0] == name), None)


class ItemTable(Value):
    """All items of a fitness, by the names of `Fitness.uses`: fixed when a run is opened, kept with it."""

    tasks: dict[str, TaskItems]

    def drawn(self, pool: str, places: Mapping[str, Sequence[int]] | None = None) -> dict[str, list[str]]:
        """Item ids by task: the whole pool, or its items at the given places."""
        found = {}
        for name, task in self.tasks.items():
            ids = task.pool(pool).ids
            wanted = range(len(ids)) if places is None else places.get(name, ())
            if wanted:
                found[name] = [ids[place] for place in wanted]
        return found
