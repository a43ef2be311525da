"""The run file as a value: everything a search is."""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from evomerge.fitness import Fitness
from evomerge.limits import Amount, Copies, Population, Positive, Seed
from evomerge.recipe import Recipe
from evomerge.space import REGMEAN, SpaceSpec
from evomerge.spec.rewritten import ExpertName, Rewritten
from evomerge.values import Tagged, Value, by_name


def _form(value: Any) -> str:
    return "recipe" if isinstance(value, Recipe | dict) else "source"


Expert: TypeAlias = Annotated[Annotated[str, Tag("source")] | Annotated[Recipe, Tag("recipe")], Discriminator(_form)]
"""A model to merge: a folder, a hub id, a recipe file or a run; or a recipe, which stands for the model it makes."""


class Models(Value):
    """The models to merge, experts under the names that genes and reports use.

    The base is a folder or a hub id; an expert may also be a recipe: in a file, a run's (`RUN`, `RUN@knee`), or itself.
    `template` is the one whose config, tokenizer and chat template a merged model gets; left out: the base, or else
    the first expert. Code that comes with models is run only with `trust_remote_code`; nobody is ever asked.

    `owners` says which objective, or which task of one, is whose own: an expert may also be written `{path: ...,
    objective: ...}`. Where each has one, the experts are `rewritten` by RegMean when a run is opened, which writes down
    where they are.
    """

    base: str | None = None
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


Mode: TypeAlias = Literal["generation", "steady"]
"""Whether results are told a generation at a time, or one by one; left out: what suits the number of workers."""


Yardstick: TypeAlias = Literal["metric", "loss"]
"""What an optimiser is told of an accuracy: the metric itself; or minus the loss of its items, where they have scores:
the cross-entropy of right options, or of reference answers. What is reported stays the metric."""


class CmaSpec(Tagged):
    """CMA-ES, for one objective or a scalarisation of several.

    As every optimiser does, it says whether it has `generations`, which `mode` and `population` are about, whether it
    takes several objectives as they are (`fronts`) or has to be told one number, whether it wants to be told the scores
    of items, too (`wants_scores`), and whether it `learns` along slopes from the fixed recipes on, instead of asking
    for one candidate after another. `told` left out is what suits the fitness; runs that do not say were told the
    metric.
    """

    kind: Literal["cma"] = "cma"
    generations: ClassVar[bool] = True
    fronts: ClassVar[bool] = False
    wants_scores: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    population: Annotated[Population, Field(ge=3)] | None = None
    sigma: Annotated[float, Field(gt=0, le=1)] | None = None
    mode: Mode | None = None
    told: Yardstick | None = None


class Nsga2Spec(Tagged):
    """NSGA-II, for a Pareto front."""

    kind: Literal["nsga2"] = "nsga2"
    generations: ClassVar[bool] = True
    fronts: ClassVar[bool] = True
    wants_scores: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    population: Annotated[Population, Field(ge=4)] = 20
    mode: Mode | None = None
    told: Yardstick | None = None


class TpeSpec(Tagged):
    """The tree-structured Parzen estimator, for few genes."""

    kind: Literal["tpe"] = "tpe"
    generations: ClassVar[bool] = False
    fronts: ClassVar[bool] = True
    wants_scores: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    population: ClassVar[None] = None
    mode: ClassVar[None] = None
    told: Yardstick | None = None


class RandomSpec(Tagged):
    """Scrambled Sobol points: what every other optimiser has to beat."""

    kind: Literal["random"] = "random"
    generations: ClassVar[bool] = False
    fronts: ClassVar[bool] = True
    wants_scores: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    population: ClassVar[None] = None
    mode: ClassVar[None] = None
    told: ClassVar[None] = None


class SurrogateSpec(Tagged):
    """A model of every item's scores over the genes, for few of them; without scores, of utilities.

    `population` is how many candidates are proposed on what is known at one time.
    """

    kind: Literal["surrogate"] = "surrogate"
    generations: ClassVar[bool] = True
    fronts: ClassVar[bool] = True
    wants_scores: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    population: Annotated[Population, Field(ge=1)] = 4
    mode: Mode | None = None
    told: ClassVar[None] = None


class GradientSpec(Tagged):
    """Adam along the slopes of the loss of every item, or Gauss-Newton for few genes, from the best fixed recipe on.

    `rate` is how far a coefficient goes in a step, at most, at the beginning; `batch` how many items a step learns
    from, of all objectives together; `held` how many search items of each task are never learned from: they say which
    iterate is best. Left out: what suits grain, budget and items. With several objectives a whole `front` is learned,
    or one model alone, by the objectives' weights.
    """

    kind: Literal["gradient"] = "gradient"
    generations: ClassVar[bool] = False
    fronts: ClassVar[bool] = True
    wants_scores: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    told: ClassVar[None] = None
    population: ClassVar[None] = None
    mode: ClassVar[None] = None
    rate: Annotated[float, Field(gt=0, le=10)] | None = None
    batch: Annotated[int, Field(ge=1, le=10_000)] | None = None
    held: Positive | None = None
    front: bool = True

    def vectors(self, fitness: Fitness) -> int:
        """How many vectors are learned: one for each objective with items, or one alone."""
        return len(fitness.objectives) - len(fitness.costs()) if self.front else 1


OptimizerSpec: TypeAlias = Annotated[
    CmaSpec | Nsga2Spec | TpeSpec | RandomSpec | SurrogateSpec | GradientSpec, Field(discriminator="kind")
]


class AutoSpec(Tagged):
    """What suits space, fitness and budget; it is chosen when a run is opened, which writes down what and why."""

    kind: Literal["auto"] = "auto"


def _or_auto(value: Any) -> Any:
    return by_name("auto" if value is None else value)


Wanted: TypeAlias = Annotated[
    Annotated[AutoSpec | OptimizerSpec, Field(discriminator="kind")], BeforeValidator(_or_auto)
]
"""An optimiser as it is asked for; nothing is `auto`."""


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


GiB: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]


class InlineSpec(Tagged):
    """In this process, one candidate at a time; `reuse` is how many GiB of hidden states are kept.

    They are those of layers that candidates share. As every executor does, it says whether candidates
    are evaluated `apart`, by other processes than this one.
    """

    kind: Literal["inline"] = "inline"
    apart: ClassVar[bool] = False
    reuse: GiB | None = None


class RaySpec(Tagged):
    """By workers on Ray, each of which holds a live model.

    There are `workers`, or as many as the cluster has room for at any time. Each takes `cpus` cores and `gpus`
    accelerators, perhaps a fraction of one; left out: one, if the cluster has any. `address` is a cluster's; left out:
    RAY_ADDRESS, or else, as with `local`, Ray is started on this machine. A work that takes longer than `deadline`
    seconds, and ten times as long as others took, counts as hung; a candidate that `deaths` workers died of is given
    up. `reuse` is as in `InlineSpec`, for each worker.
    """

    kind: Literal["ray"] = "ray"
    apart: ClassVar[bool] = True
    workers: Copies | None = None
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None
    cpus: Copies = 1
    address: str | None = None
    deadline: Amount = 60.0
    deaths: Copies = 3
    reuse: GiB | None = None

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"is {address!r}, a Ray client's; give auto or HOST:PORT on a machine of the cluster, or hand the"
                " search to it: ray job submit"
            )
        return address


ExecutorKind: TypeAlias = Literal["inline", "ray"]
ExecutorSpec: TypeAlias = Annotated[InlineSpec | RaySpec, Field(discriminator="kind")]


class GuardSpec(Value):
    """A `text` that merges must still foretell as well as a fixed recipe does, `of` that name, but for a `share`.

    It is the share by which the perplexity of what is learned may be above that recipe's: the uniform average's, or
    the base's where there is no such average.
    """

    text: str
    share: Annotated[float, Field(gt=0, le=10)] = 0.03
    of: str | None = None


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
