"""What counts as better, declared: objectives over benchmark tasks, and the items they are measured on."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias, assert_never, get_args

from pydantic import BeforeValidator, Field, model_validator

from evomerge.items import COST, Cost, ItemTable, Split, TaskItems
from evomerge.limits import Name, Positive
from evomerge.values import Value, by_name

Direction: TypeAlias = Literal["max", "min"]
Bounds: TypeAlias = Sequence[tuple[float, float]]
"""Worst and best known value of each objective, signed so that higher is better."""


class TieBreak(Value):
    """A second metric of the same task, added to what the optimiser is told and never reported.

    The task's higher-is-better decides the sign, so `weight` is positive.
    """

    metric: str
    weight: float = Field(gt=0, le=1e6)


class Objective(Value):
    """One thing to be good at: a metric of a task, or its mean over several tasks; or a cost to be kept low.

    `metric` is written as lm-eval prints it, with a filter after a comma where a task has several
    (`exact_match,strict-match`); left out, it is the task's first. `direction` defaults to the metric's own,
    `split` to what lm-eval evaluates on: test documents, or validation documents where there are none. A `cost` is
    how many layers or weights the merged model has: exact, known without any items, lower is better. `reference` is
    what is learned from items: their targets, or the probabilities that experts, whose own objective it is, give them.
    """

    task: str | None = None
    tasks: tuple[str, ...] = ()
    metric: str | None = None
    weight: float = Field(1.0, gt=0, le=1e6)
    direction: Direction | None = None
    split: Split | None = None
    fewshot: int | None = Field(None, ge=0, le=10_000)
    chat_template: bool = False
    system: str | None = None
    generation: dict[str, Any] | None = None
    tie_break: TieBreak | None = None
    cost: Cost | None = None
    reference: Literal["target", "experts"] = "target"

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if sum((self.task is not None, bool(self.tasks), self.cost is not None)) != 1:
            raise ValueError("needs one of task: NAME, tasks: [NAME, ...], cost: layers and cost: parameters")
        if COST in self.task_names():
            raise ValueError(f"needs a task of another name, {COST} is what a model's costs are kept under")
        if self.cost is not None:
            self._check_cost()
        return self

    def _check_cost(self) -> None:
        for name, field in type(self).model_fields.items():
            if name not in ("cost", "weight") and getattr(self, name) != field.default:
                raise ValueError(f"{name} has no meaning for a cost, which no items measure; leave it out")

    def task_names(self) -> tuple[str, ...]:
        """The tasks whose mean this is; none of a cost."""
        return self.tasks or ((self.task,) if self.task is not None else ())


class Items(Value):
    """How many items of each task a search sees, how many it is confirmed on, and how many are kept for a last look.

    They are never the same ones. They are chosen by a hash of the document, or of its field `group`, which also
    clusters standard errors. Left out, the numbers shrink for a task that has not enough; written down, they are
    insisted on. `report` left out is none.
    """

    search: Positive | None = None
    confirm: Positive | None = None
    report: Positive | None = None
    group: str | None = None


EstimatorKind: TypeAlias = Literal[
    "mean", "weighted", "p_irt", "gp_irt", "mp_irt", "gmp_irt", "difference", "aipw", "blend"
]
Design: TypeAlias = Literal["random", "stratified", "active", "anchors", "anchors_irt", "information"]


def by_choice(design: Design) -> bool:
    """Whether a design leaves nothing to chance, so that no estimate from it can be corrected by probabilities."""
    match design:
        case "random" | "stratified" | "active":
            return False
        case "anchors" | "anchors_irt" | "information":
            return True
        case _:
            assert_never(design)


def needs_calibration(design: Design) -> bool:
    """Whether a design chooses items by their parameters."""
    match design:
        case "random" | "stratified" | "active" | "anchors":
            return False
        case "anchors_irt" | "information":
            return True
        case _:
            assert_never(design)


def needs_chance(kind: EstimatorKind) -> bool:
    """Whether an estimator corrects by the probabilities with which items were drawn."""
    match kind:
        case "mean" | "weighted" | "p_irt" | "gp_irt" | "mp_irt" | "gmp_irt":
            return False
        case "difference" | "aipw" | "blend":
            return True
        case _:
            assert_never(kind)


def takes_any_range(kind: EstimatorKind) -> bool:
    """Whether marks need not lie in [0, 1]."""
    match kind:
        case "mean" | "weighted" | "difference" | "aipw":
            return True
        case "p_irt" | "gp_irt" | "mp_irt" | "gmp_irt" | "blend":
            return False
        case _:
            assert_never(kind)


def suited_design(kind: EstimatorKind) -> Design:
    """The design that suits an estimator best."""
    match kind:
        case "weighted":
            return "anchors"
        case "difference" | "aipw" | "blend":
            return "active"
        case "mean" | "p_irt" | "gp_irt" | "mp_irt" | "gmp_irt":
            return "random"
        case _:
            assert_never(kind)


def plain_kind(kind: EstimatorKind, *, chosen: bool) -> EstimatorKind:
    """The estimator of marks of any range that stands in for this one; `chosen` items were drawn by no chance."""
    match kind:
        case "mean" | "weighted":
            return "mean"
        case "p_irt" | "gp_irt" | "mp_irt" | "gmp_irt" | "difference" | "aipw" | "blend":
            return "mean" if chosen else "aipw"
        case _:
            assert_never(kind)


ESTIMATORS: tuple[EstimatorKind, ...] = get_args(EstimatorKind)
WITHOUT_CHANCE = tuple(kind for kind in ESTIMATORS if not needs_chance(kind))
ANY_RANGE = tuple(kind for kind in ESTIMATORS if takes_any_range(kind))


class EstimatorSpec(Value):
    """How a search tells what a candidate is worth from a few items.

    `items` are drawn per task and candidate by `design`, the same for a whole generation and, where `rotate` is on,
    others for the next. `rungs` are smaller numbers of items after each of which only the best `keep` go on.
    `refresh` is the share of a search's items that goes to scoring elites again on fresh items. `calibration` is a
    file of item parameters.
    """

    kind: EstimatorKind = "aipw"
    items: Annotated[Positive, Field(description="a number of items, or all")] | Literal["all"] = 40
    design: Design | None = None
    rotate: bool | None = None
    rungs: tuple[Positive, ...] = Field((), strict=False)  # `by_name` hands on a list.
    keep: float = Field(0.5, gt=0, lt=1)
    refresh: float = Field(0.1, ge=0, le=0.5)
    calibration: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.design is not None and by_choice(self.design) and needs_chance(self.kind):
            raise ValueError(f"{self.kind} needs items drawn by chance; give design random, stratified or active")
        if self.rungs and (list(self.rungs) != sorted(set(self.rungs)) or not self._below(self.rungs[-1])):
            raise ValueError(f"rungs {list(self.rungs)} must grow and end below items, which is {self.items}")
        if self.rungs and by_choice(self.chosen_design):
            raise ValueError(
                f"rungs need items drawn by chance, which design {self.chosen_design} does not; leave them out"
            )
        if self.design is not None and needs_calibration(self.design) and self.calibration is None:
            raise ValueError(f"design {self.design} needs item parameters; give calibration: FILE")
        return self

    def _below(self, rung: int) -> bool:
        return self.items == "all" or rung < self.items

    def drawn(self, table: ItemTable) -> int:
        """How many items a candidate is put to, over all tasks, if it is put to a whole draw."""
        return sum(self.drawn_of(task) for task in table.tasks.values())

    def drawn_of(self, task: TaskItems) -> int:
        """The same of one task."""
        pool = len(task.search.ids)
        return pool if self.items == "all" else min(self.items, pool)

    @property
    def chosen_design(self) -> Design:
        """The design, or what suits the estimator best."""
        return self.design or suited_design(self.kind)

    @property
    def rotates(self) -> bool:
        """Whether every generation gets items of its own: yes, unless they are chosen or the user says otherwise."""
        return not by_choice(self.chosen_design) if self.rotate is None else self.rotate


def bounds_of(points: Iterable[Sequence[float]]) -> Bounds:
    """The bounds of these points; none of none."""
    return [(min(column), max(column)) for column in zip(*points, strict=True)]


class Fitness(Value):
    """Objectives, the items they are measured on, and how several objectives become one number.

    `include` names folders of lm-eval task files; stock tasks need none.
    """

    include: tuple[str, ...] = ()
    objectives: dict[Name, Objective] = Field(min_length=1, max_length=100)
    items: Items = Items()
    estimator: Annotated[EstimatorSpec, BeforeValidator(by_name)] = EstimatorSpec()
    scalarisation: Literal["weighted_sum", "chebyshev"] = "weighted_sum"

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if len(self.costs()) == len(self.objectives):
            raise ValueError("objectives are costs alone, which say nothing of quality; add one with a task")
        return self

    def costs(self) -> dict[str, Cost]:
        """Which cost it is, of every objective that is one."""
        return {label: each.cost for label, each in self.objectives.items() if each.cost is not None}

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
        """Names, in `uses`, of the tasks of one objective; none of a cost."""
        named = self.uses()
        wanted = [TaskUse.of(self.objectives[objective], task) for task in self.objectives[objective].task_names()]
        return tuple(name for use in wanted for name, other in named.items() if other == use)

    def owned(self, name: str) -> tuple[str, ...]:
        """Names, in `uses`, of an objective's tasks, or of the one task of this name; none if there is neither."""
        if name in self.objectives:
            return self.keys(name)
        return tuple(each for each, use in self.uses().items() if name in (each, use.task))


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
