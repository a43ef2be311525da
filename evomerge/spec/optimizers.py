"""The optimisers of a run file, and what each of them is like."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, assert_never

from pydantic import BeforeValidator, Field

from evomerge.fitness import Fitness
from evomerge.limits import Population, Positive
from evomerge.values import Tagged, by_name

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


def gradient_of(optimizer: OptimizerSpec | None) -> GradientSpec | None:
    """How coefficients are learned along slopes, if that is what the optimiser is."""
    match optimizer:
        case GradientSpec():
            return optimizer
        case CmaSpec() | Nsga2Spec() | TpeSpec() | RandomSpec() | SurrogateSpec() | None:
            return None
        case _:
            assert_never(optimizer)


class AutoSpec(Tagged):
    """What suits space, fitness and budget; it is chosen when a run is opened, which writes down what and why."""

    kind: Literal["auto"] = "auto"


def _or_auto(value: Any) -> Any:
    return by_name("auto" if value is None else value)


Wanted: TypeAlias = Annotated[
    Annotated[AutoSpec | OptimizerSpec, Field(discriminator="kind")], BeforeValidator(_or_auto)
]
"""An optimiser as it is asked for; nothing is `auto`."""
