"""Which recipes may be proposed, and how a genome names one."""

from typing import Annotated, Any, Protocol, TypeAlias, assert_never

from pydantic import Discriminator, Tag

from evomerge.recipe import Parents, Recipe
from evomerge.space.blend import BlendSpace
from evomerge.space.fixed import REGMEAN, UNIFORM, fixed_recipes, unchanged
from evomerge.space.genes import Gene, GeneKind
from evomerge.space.hops import check_size
from evomerge.space.joint import JointSpace, JointSpec, route_space
from evomerge.space.path import PathSpec
from evomerge.space.repeat import RepeatSpec
from evomerge.space.span import folded, span_of, weights_of
from evomerge.space.spec import BlendSpec
from evomerge.space.stack import StackSpec
from evomerge.space.swap import SwapSpace, SwapSpec
from evomerge.space.tensor import TensorSpace, names_for
from evomerge.values import Genome

__all__ = [
    "REGMEAN", "UNIFORM", "BlendSpec", "Gene", "GeneKind", "JointSpec", "PathSpec", "RepeatSpec", "SearchSpace",
    "SpaceSpec", "StackSpec", "SwapSpec", "bind", "fixed_recipes", "folded", "names_for", "span_of",
    "unchanged", "weights_of",
]  # fmt: skip


def _kind(value: Any) -> Any:
    return value.get("kind", "blend") if isinstance(value, dict) else getattr(value, "kind", "blend")


SpaceSpec: TypeAlias = Annotated[
    Annotated[BlendSpec, Tag("blend")]
    | Annotated[PathSpec, Tag("path")]
    | Annotated[StackSpec, Tag("stack")]
    | Annotated[RepeatSpec, Tag("repeat")]
    | Annotated[SwapSpec, Tag("swap")]
    | Annotated[JointSpec, Tag("joint")],
    Discriminator(_kind),
]
"""A space as it is written; one that does not say its kind is a blend."""


class SearchSpace(Protocol):
    """A set of recipes with an address in the unit cube for each."""

    genes: tuple[Gene, ...]

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        ...

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names a recipe, for warm starts; SpecError if it is not in the space."""
        ...

    def priors(self) -> tuple[Genome, ...]:
        """Points worth beginning with, beside the fixed recipes."""
        ...


def bind(spec: SpaceSpec, parents: Parents) -> SearchSpace:
    """The space that `spec` describes, over these parents.

    Raises:
        SpecError: the parents cannot fill the space.
    """
    space = _bound(spec, parents)
    check_size(0, len(space.genes))
    return space


def _bound(spec: SpaceSpec, parents: Parents) -> SearchSpace:
    match spec:
        case BlendSpec(groups="tensor"):
            return TensorSpace(spec, parents)
        case BlendSpec():
            return BlendSpace(spec, parents)
        case SwapSpec():
            return SwapSpace(spec, parents)
        case JointSpec():
            return JointSpace(spec, parents)
        case PathSpec() | StackSpec() | RepeatSpec():
            return route_space(spec, parents)
        case _:
            assert_never(spec)
