"""The run file as a value: everything a search is."""

from typing import Annotated, Any, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from evomerge.fitness import Fitness
from evomerge.limits import Amount, Positive, Seed
from evomerge.recipe import Recipe
from evomerge.space import REGMEAN, SpaceSpec
from evomerge.spec.executors import ExecutorSpec, InlineSpec
from evomerge.spec.guard import GuardSpec
from evomerge.spec.optimizers import AutoSpec, OptimizerSpec, Wanted
from evomerge.spec.rewritten import ExpertName, Rewritten
from evomerge.values import Value, by_name


def _form(value: Any) -> str:
    return "recipe" if isinstance(value, Recipe | dict) else "source"


Expert: TypeAlias = Annotated[Annotated[str, Tag("source")] | Annotated[Recipe, Tag("recipe")], Discriminator(_form)]
"""A model to merge: a folder, a hub id, a recipe file or a run; or a recipe, which stands for the model it makes."""


class Models(Value):
    """The models to merge, experts under the names that genes and reports use.

    The base is a folder or a hub id; an expert may also be a recipe: in a file, a run's (`RUN`, `RUN@knee`), or itself.
    In a stage after a path the base is a recipe, too, that has the path's layers.
    `template` is the one whose config, tokenizer and chat template a merged model gets; left out: the base, or else
    the first expert. Code that comes with models is run only with `trust_remote_code`; nobody is ever asked.

    `owners` says which objective, or which task of one, is whose own: an expert may also be written `{path: ...,
    objective: ...}`. Where each has one, the experts are `rewritten` by RegMean when a run is opened, which writes down
    where they are.
    """

    base: Expert | None = None
    template: str | None = None
    trust_remote_code: bool = False
    experts: dict[ExpertName, Expert] = Field(min_length=1)
    owners: dict[ExpertName, str] = Field(default_factory=dict)
    rewritten: Rewritten | None = None

    @model_validator(mode="after")
    def _owners_are_experts(self) -> Self:
        for name in self.owners:
            if name not in self.experts:
                raise ValueError(f"owners: {name!r} is none of the experts ({', '.join(self.experts)})")
        return self

    def sources(self) -> dict[str, Expert]:
        """The experts, and those that were rewritten."""
        return {**self.experts, **(self.rewritten.sources() if self.rewritten is not None else {})}

    @property
    def beforehand(self) -> int:
        """Search items that were put to models before a run began."""
        return 0 if self.rewritten is None else self.rewritten.items

    def owned(self) -> bool:
        """Whether each of several experts has an objective of its own, which is what RegMean asks for."""
        return len(self.experts) > 1 and set(self.owners) == set(self.experts)


class Budget(Value):
    """Hard limits of a search; the first to be reached ends it.

    `seconds` and `accelerator_hours` count all sessions together, the latter for every accelerator of every worker; a
    worker on a CPU has one. Time that the machine sleeps does not count.

    Two rules end it earlier: `stall`, after so many candidates that added nothing to the front, and `target`, values of
    objectives, once a candidate reaches all of them.
    """

    evaluations: Positive | None = None
    seconds: Amount | None = None
    item_evaluations: Annotated[int, Field(ge=1, le=10**15)] | None = None
    accelerator_hours: Amount | None = None
    stall: Positive | None = None
    target: dict[str, float] = Field(default_factory=dict)


class RunSpec(Value):
    """Everything a search is."""

    models: Models
    space: SpaceSpec
    fitness: Fitness
    optimizer: Wanted = AutoSpec()
    start: tuple[str, ...] = ()
    guard: GuardSpec | None = None
    budget: Budget = Budget(evaluations=200)
    executor: Annotated[ExecutorSpec, BeforeValidator(by_name)] = InlineSpec()
    seed: Seed = 7
    device: str = "auto"

    @property
    def chosen(self) -> OptimizerSpec | None:
        """The optimiser; None as long as it is left open."""
        return None if isinstance(self.optimizer, AutoSpec) else self.optimizer

    @property
    def items_left(self) -> int | None:
        """Item evaluations of the budget that are left when the run begins; None if they are not limited."""
        most = self.budget.item_evaluations
        return None if most is None else most - self.models.beforehand

    @field_validator("budget")
    @classmethod
    def _limited(cls, budget: Budget) -> Budget:
        return limited(budget)

    @model_validator(mode="after")
    def _aims_at_objectives(self) -> Self:
        check_target(self.budget, self.fitness)
        if self.guard is not None:
            self.guard.check(self.fitness)
        for name, label in self.models.owners.items():
            if not self.fitness.owned(label):
                known = [key for key, each in self.fitness.objectives.items() if each.cost is None]
                known += [task for task in self.fitness.uses() if task not in known]
                raise ValueError(
                    f"models.experts.{name}.objective: {label!r} is no objective with items, nor a task of one; give"
                    f" {' or '.join(known)}"
                )
        if REGMEAN in self.start and not self.models.owned():
            raise ValueError(
                f"start: {REGMEAN} asks for an objective of its own for each of several experts; write models.experts"
                " as {maths: {path: ..., objective: ...}}"
            )
        return self


def limited(budget: Budget) -> Budget:
    """The budget, if it limits anything; a validator's ValueError otherwise."""
    *others, last = (name for name in Budget.model_fields if name not in ("stall", "target"))
    if all(getattr(budget, name) is None for name in (*others, last)):
        raise ValueError(f"sets no limit; give {', '.join(others)} or {last}")
    return budget


def check_target(budget: Budget, fitness: Fitness) -> None:
    """See that a target is one of the fitness's objectives; a validator's ValueError otherwise."""
    for label in budget.target:
        if label not in fitness.objectives:
            raise ValueError(f"budget.target: {label!r} is no objective; give {' or '.join(fitness.objectives)}")
