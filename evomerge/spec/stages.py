"""A run in stages as a value: searches one after another, each over what the one before it found."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.errors import SpecError
from evomerge.fitness import Fitness
from evomerge.limits import Copies, Seed
from evomerge.recipe import Recipe
from evomerge.space import REGMEAN, SpaceSpec
from evomerge.spec.executors import ExecutorSpec, InlineSpec
from evomerge.spec.guard import GuardSpec
from evomerge.spec.optimizers import AutoSpec, Wanted
from evomerge.spec.rewritten import ExpertName
from evomerge.spec.run import Budget, Models, RunSpec, check_target, limited
from evomerge.values import Value, by_name

Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class StageSpec(Value):
    """One search of several. What is left out is the run's; `share` is the part of the run's budget that it gets.

    `keep` says how many of its best the next stage may merge, or begin with; `parents` whether it merges all experts
    and what the stage before it kept, only the latter, or the experts, and begins with what was kept. `along` names the
    best of those kept, which is then merged with the layers, in its order, of all others.
    """

    name: ExpertName | None = None
    space: SpaceSpec
    optimizer: Wanted = AutoSpec()
    budget: Budget | None = None
    share: Share | None = None
    start: tuple[str, ...] = ()
    seed: Seed | None = None
    fitness: Fitness | None = None
    keep: Copies = 1
    parents: Literal["all", "kept", "experts"] = "all"
    along: ExpertName | None = None

    @field_validator("budget")
    @classmethod
    def _limited(cls, budget: Budget | None) -> Budget | None:
        return budget if budget is None else limited(budget)


class StagedSpec(Value):
    """Everything a run in stages is."""

    models: Models
    stages: tuple[StageSpec, ...] = Field(min_length=1, max_length=100)
    fitness: Fitness
    guard: GuardSpec | None = None
    budget: Budget = Budget(evaluations=200)
    executor: Annotated[ExecutorSpec, BeforeValidator(by_name)] = InlineSpec()
    seed: Seed = 7
    device: str = "auto"

    @field_validator("budget")
    @classmethod
    def _limited(cls, budget: Budget) -> Budget:
        return limited(budget)

    @model_validator(mode="after")
    def _can_be_paid(self) -> Self:
        for place, stage in enumerate(self.stages):
            if (stage.budget is None) == (stage.share is None):
                both = "both a budget and a share; leave one out" if stage.budget else "neither a budget nor a share"
                raise ValueError(f"stages.{place} has {both}{'' if stage.budget else '; give one'}")
        total = sum(stage.share or 0.0 for stage in self.stages)
        if total > 1 + 1e-9:
            raise ValueError(f"stages: the shares sum to {total:g}; lower them until they sum to 1 or less")
        return self

    @model_validator(mode="after")
    def _aim_at_objectives(self) -> Self:
        for place, stage in enumerate(self.stages):
            check_target(self.budget_of(place), stage.fitness or self.fitness)
            if self.guard is not None:
                self.guard.check(stage.fitness or self.fitness)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.stages[0].parents == "kept":
            raise ValueError("stages.0.parents is kept, and no stage before it keeps anything; leave it out")
        for place, stage in enumerate(self.stages):
            self._check_along(place, stage)
        for place, name in enumerate(self.names):
            if name in self.names[:place]:
                raise ValueError(f"stages.{place}.name is {name!r}, as that of another stage; choose another")
            taken = [kept for kept in self.kept_names(place) if kept in self.models.experts]
            if taken:
                raise ValueError(f"models.experts: {taken[0]!r} is what stage {name} keeps; choose another name")
        return self

    def _check_along(self, place: int, stage: StageSpec) -> None:
        if stage.along is None:
            return
        best = self.kept_names(place - 1)[0] if place else None  # Of others it may not keep so many.
        if stage.along != best:
            way = f"write {best}" if best is not None else "leave it out"
            raise ValueError(f"stages.{place}.along: {stage.along!r} is not the best of the stage before; {way}")
        if stage.parents != "all":
            raise ValueError(f"stages.{place}.parents: {stage.parents} has no meaning with along; leave it out")
        if REGMEAN in stage.start:
            raise ValueError(
                f"stages.{place}.start: {REGMEAN} reads models as they are, not along another; leave it out"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages: their numbers, from 1, where none is given."""
        return tuple(stage.name or str(number) for number, stage in enumerate(self.stages, start=1))

    def kept_names(self, place: int) -> tuple[str, ...]:
        """What the best of a stage (from 0) are called in the next one, in their order."""
        return tuple(f"{self.names[place]} {number}" for number in range(1, self.stages[place].keep + 1))

    def run(self, place: int, kept: Mapping[str, Recipe]) -> RunSpec:
        """The search of a stage (from 0), over what the stage before it kept."""
        stage = self.stages[place]
        merged = {} if stage.parents == "experts" else kept
        given: dict[str, Any] = {} if stage.parents == "kept" else {**self.models.experts}
        base = self.models.base
        if stage.along is not None:
            by = kept[stage.along]
            merged = {stage.along: by}
            over = base if isinstance(base, str) else None
            given = {name: by.walked(source, over) for name, source in given.items()}
            base = None if base is None else by.walked(base, dtype=by.dtype)
        experts = {**given, **merged}
        owners = {name: label for name, label in self.models.owners.items() if name in experts}
        models = self.models.model_copy(update={"base": base, "experts": experts, "owners": owners})
        if models.template is not None and models.template not in (*experts, *(("base",) if models.base else ())):
            raise SpecError(f"models.template: {models.template!r} is none of stage {self.names[place]}'s models")
        return RunSpec(
            models=models,
            space=stage.space,
            fitness=stage.fitness or self.fitness,
            optimizer=stage.optimizer,
            start=stage.start,
            guard=self.guard,
            budget=self.budget_of(place),
            executor=self.executor,
            seed=self.seed if stage.seed is None else stage.seed,
            device=self.device,
        )

    def budget_of(self, place: int) -> Budget:
        """A stage's own budget, or its share of the run's: at least one of what is counted, its rules as they are."""
        stage = self.stages[place]
        if stage.budget is not None or stage.share is None:
            assert stage.budget is not None, "it has a budget or a share"
            return stage.budget
        counts = {
            key: max(1, round(count * stage.share))
            for key in ("evaluations", "item_evaluations")
            if (count := getattr(self.budget, key)) is not None
        }
        amounts = {
            key: amount * stage.share
            for key in ("seconds", "accelerator_hours")
            if (amount := getattr(self.budget, key)) is not None
        }
        return Budget(**counts, **amounts, stall=self.budget.stall, target=self.budget.target)
