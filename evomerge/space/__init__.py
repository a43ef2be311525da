"""Which recipes may be proposed, and how a genome names one."""

from typing import Protocol, TypeAlias

from evomerge.recipe import Parents, Recipe
from evomerge.space.blend import BlendSpace
from evomerge.space.fixed import UNIFORM, fixed_recipes, unchanged
from evomerge.space.genes import Gene
from evomerge.space.span import span_of
from evomerge.space.spec import BlendSpec
from evomerge.values import Genome

__all__ = ["UNIFORM", "BlendSpec", "Gene", "SearchSpace", "SpaceSpec", "bind", "fixed_recipes", "span_of", "unchanged"]

SpaceSpec: TypeAlias = BlendSpec


class SearchSpace(Protocol):
    """A set of recipes with an address in the unit cube for each."""

    genes: tuple[Gene, ...]

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        ...

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names a recipe, for warm starts; SpecError if it is not in the space."""
        ...


def bind(spec: SpaceSpec, parents: Parents) -> SearchSpace:
    """The space that `spec` describes, over these parents.

    Raises:
        SpecError: the parents cannot fill the space.
    """
    match spec:
        case BlendSpec():
            return BlendSpace(spec, parents)
