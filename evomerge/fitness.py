"""What counts as better, declared: objectives over benchmark tasks, and the items they are measured on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from evomerge.values import Value, by_name

Direction: TypeAlias = Literal["max", "min"]
Split: TypeAlias = Literal["train", "validation", "test"]
PoolName: TypeAlias = Literal["search", "confirm", "report"]
POOLS: tuple[PoolName, ...] = ("search", "confirm", "report")
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
    (`exact_match,strict-match`); left out, it is the task's first. `direction` defaults to the metric's own,
    `split` to what lm-eval evaluates on: test documents, or validation documents where there are none.
    """

    task: str | None = None
    tasks: tuple[str, ...] = ()
    metric: str | None = None
    weight: float = Field(1.0, gt=0)
    direction: Direction | None = None
    split: Split | None = None
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
    """How many items of each task a search sees, how many it is confirmed on, and how many are kept for a last look.

    They are never the same ones. They are chosen by a hash of the document, or of its field `group`, which also
    clusters standard errors. Left out, the numbers shrink for a task that has not enough; written down, they are
    insisted on. `report` left out is none.
    """

    search: int | None = Field(None, ge=1)
    confirm: int | None = Field(None, ge=1)
    report: int | None = Field(None, ge=1)
    group: str | None = None


EstimatorKind: TypeAlias = Literal[
    "mean", "weighted", "p_irt", "gp_irt", "mp_irt", "gmp_irt", "difference", "aipw", "blend"
]
Design: TypeAlias = Literal["random", "stratified", "active", "anchors", "anchors_irt", "information"]
BY_CHOICE = ("anchors", "anchors_irt", "information")
"""Designs that leave nothing to chance, so that no estimate from them can be corrected by probabilities."""
WITHOUT_CHANCE = ("mean", "weighted", "p_irt", "gp_irt", "mp_irt", "gmp_irt")
"""Estimators that do without probabilities."""
ANY_RANGE = ("mean", "weighted", "difference", "aipw")
"""Estimators of marks that need not lie in [0, 1]."""


class EstimatorSpec(Value):
    """How a search tells what a candidate is worth from a few items.

    `items` are drawn per task and candidate by `design`, the same for a whole generation and, where `rotate` is on,
    others for the next. `rungs` are smaller numbers of items after each of which only the best `keep` go on.
    `refresh` is the share of a search's items that goes to scoring elites again on fresh items. `tell` is what the
    optimiser learns: estimates, or estimates shrunk to their neighbours'. `calibration` is a file of item parameters.
    """

    kind: EstimatorKind = "aipw"
    items: Annotated[int, Field(ge=1, description="a number of items, or all")] | Literal["all"] = 40
    design: Design | None = None
    rotate: bool | None = None
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field((), strict=False)  # `by_name` hands on a list.
    keep: float = Field(0.5, gt=0, lt=1)
    refresh: float = Field(0.1, ge=0, le=0.5)
    tell: Literal["estimate", "shrunken"] | None = None
    calibration: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.design in BY_CHOICE and self.kind not in WITHOUT_CHANCE:
            raise ValueError(f"{self.kind} needs items drawn by chance; give design random, stratified or active")
        if self.rungs and (list(self.rungs) != sorted(set(self.rungs)) or not self._below(self.rungs[-1])):
            raise ValueError(f"rungs {list(self.rungs)} must grow and end below items, which is {self.items}")
        if self.design in ("anchors_irt", "information") and self.calibration is None:
            raise ValueError(f"design {self.design} needs item parameters; give calibration: FILE")
        return self

    def _below(self, rung: int) -> bool:
        return self.items == "all" or rung < self.items

    def drawn(self, table: "ItemTable") -> int:
        """How many items a candidate is put to, over all tasks, if it is put to a whole draw."""
        return sum(self.drawn_of(task) for task in table.tasks.values())

    def drawn_of(self, task: "TaskItems") -> int:
        """The same of one task."""
        pool = len(task.search.ids)
        return pool if self.items == "all" else min(self.items, pool)

    @property
    def chosen_design(self) -> Design:
        """The design, or what suits the estimator best."""
        suited: dict[str, Design] = {"weighted": "anchors", "aipw": "active", "difference": "active", "blend": "active"}
        return self.design or suited.get(self.kind, "random")

    @property
    def rotates(self) -> bool:
        """Whether every generation gets items of its own: yes, unless they are chosen or the user says otherwise."""
        return self.chosen_design not in BY_CHOICE if self.rotate is None else self.rotate


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
    estimator: Annotated[EstimatorSpec, BeforeValidator(by_name)] = EstimatorSpec()
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
    split: Split | None
    fewshot: int | None
    chat_template: bool
    system: str | None
    generation: dict[str, Any] | None

    @classmethod
    def of(cls, objective: Objective, task: str) -> Self:
        """How `objective` puts `task` to a model."""
        return cls(
            task=task,
            split=objective.split,
            fewshot=objective.fewshot,
            chat_template=objective.chat_template,
            system=objective.system,
            generation=objective.generation,
        )


class Pool(Value):
    """Items in a fixed order, and for each the cluster it shares its error with.

    `weights` sum to 1 and make of marks the benchmark's number; left out, they are equal. `strata` names the sub-task
    of each item, if there are several. `costs` are the tokens that a model reads and at most writes for each item,
    left out where nobody counted.
    """

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    weights: tuple[float, ...] = ()
    strata: tuple[str, ...] = ()
    costs: tuple[int, ...] = ()

    def shares(self, places: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The weight of each item, or of each one at `places`: (items,), sum 1."""
        weights = np.asarray(self.weights or (1.0,) * len(self.ids))
        kept = weights if places is None else weights[np.asarray(places, dtype=int)]
        shares: NDArray[np.float64] = kept / kept.sum()
        return shares


NOTHING = Pool(ids=(), clusters=())


class TaskItems(Value):
    """One task's items, split by hash, and its metrics with whether higher is better.

    `split` says which documents they are. `stock` tells lm-eval's own tasks from those of `include`, `benchmark` that
    the split is the one whose numbers people compare: what lm-eval evaluates on. `whole_weights` are the weights of an
    item by its sub-task where all pools are taken together; left out, they are equal.
    """

    search: Pool
    confirm: Pool
    report: Pool = NOTHING
    metrics: dict[str, bool]
    split: Split | None = None
    stock: bool = False
    benchmark: bool = False
    whole_weights: dict[str, float] = Field(default_factory=dict)

    def pool(self, name: PoolName) -> Pool:
        """The pool of that name; without items if there is none."""
        return {"search": self.search, "confirm": self.confirm, "report": self.report}[name]

    def whole(self) -> Pool:
        """All pools as one, in their order."""
        pools = [self.pool(name) for name in POOLS]
        strata = tuple(stratum for pool in pools for stratum in pool.strata)
        return Pool(
            ids=tuple(key for pool in pools for key in pool.ids),
            clusters=tuple(cluster for pool in pools for cluster in pool.clusters),
            weights=tuple(self.whole_weights[stratum] for stratum in strata) if self.whole_weights else (),
            strata=strata,
        )

    def metric(self, name: str | None) -> str | None:
        """A metric as the task names it: its first if none is asked for, with its first filter if none is given."""
        if name is None or name in self.metrics:
            return name or next(iter(self.metrics), None)
        return next((known for known in self.metrics if known.split(",")[0] == name), None)


class ItemTable(Value):
    """All items of a fitness, by the names of `Fitness.uses`: fixed when a run is opened, kept with it."""

    tasks: dict[str, TaskItems]

    def count(self, pool: PoolName, places: Mapping[str, Sequence[int]] | None = None) -> int:
        """How many items there are at these places, or in the whole pool, over all tasks."""
        return sum(map(len, self.drawn(pool, places).values()))

    def caveats(self) -> list[str]:
        """What must be said wherever a search's numbers are shown: which of them are no benchmark results."""
        return [
            f"{name}: the search uses its {task.split} split, on which this benchmark is reported; the numbers of this"
            " run must not be reported as results on it"
            for name, task in self.tasks.items()
            if task.stock and task.benchmark
        ]

    def items_of(self, pool: PoolName) -> dict[str, int]:
        """How many items of each task are in a pool; tasks without any are left out."""
        return {name: len(task.pool(pool).ids) for name, task in self.tasks.items() if task.pool(pool).ids}

    def same_items(self, other: "ItemTable") -> bool:
        """Whether both hold the same items in the same order, with the same clusters and metrics."""
        return self._items() == other._items()

    def _items(self) -> dict[str, Any]:
        return {
            name: [task.metrics, *((task.pool(pool).ids, task.pool(pool).clusters) for pool in POOLS)]
            for name, task in self.tasks.items()
        }

    def drawn(self, pool: PoolName, places: Mapping[str, Sequence[int]] | None = None) -> dict[str, list[str]]:
        """Item ids by task: the whole pool, or its items at the given places."""
        found = {}
        for name, task in self.tasks.items():
            ids = task.pool(pool).ids
            wanted = range(len(ids)) if places is None else places.get(name, ())
            if wanted:
                found[name] = [ids[place] for place in wanted]
        return found
