"""Layer swapping: the middle of one expert between the bottom and the top of another."""

from itertools import product
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from evomerge.errors import SpecError
from evomerge.limits import HOPS
from evomerge.recipe import COMPONENTS, Blend, Layer, Linear, Parents, Recipe, Source
from evomerge.space.genes import TOLERANCE
from evomerge.space.hops import category, genes_of, genome_of, integer, values_of, wholes_of
from evomerge.space.span import copy_of, refuse_own_weights, span_of
from evomerge.values import Genome, Tagged


class SwapSpec(Tagged):
    """Layer swapping with a transition zone (Bandarkar et al. 2025): three whole numbers.

    Layers from `begin` up to `end` are those of the expert inside, all others and what lies outside the stack those of
    the expert outside; where they meet, so many layers inside are averages, `transition` at most. Who is inside and
    who outside is searched too, where it is left out.
    """

    kind: Literal["swap"] = "swap"
    grain: ClassVar[None] = None
    inside: str | None = None
    outside: str | None = None
    transition: int = Field(2, ge=0, le=HOPS)


class _Roles(NamedTuple):
    outside: str
    inside: str


class SwapSpace:
    """A space of swapped layers bound to its parents; see `SearchSpace`.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: SwapSpec, parents: Parents) -> None:
        self.spec = spec
        self.parents = parents
        self._roles = _roles(spec, parents)
        self._axes = {
            "roles": category("swap.experts", len(self._roles)),
            "begin": integer("swap.begin", 0, parents.layers),
            "end": integer("swap.end", 0, parents.layers),
            "transition": integer("swap.transition", 0, min(spec.transition, (parents.layers + 1) // 2)),
        }
        self.genes = genes_of(self._axes)

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total: which of two places comes first is the beginning."""
        values = values_of(self._axes, genome)
        roles, (begin, end) = self._roles[int(values["roles"])], sorted((int(values["begin"]), int(values["end"])))
        mixtures = self._mixtures(roles, begin, end, int(values["transition"]))
        layers = tuple(Layer(blend=_blend(names, index)) for index, names in enumerate(mixtures))
        return self.parents.recipe(layers, {name: copy_of(roles.outside, None) for name in self.parents.outer})

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        refuse_own_weights(recipe)
        mixtures = [_mixture(index, layer) for index, layer in enumerate(recipe.layers)]
        outer = {name for blend in recipe.outer.values() for name in _names(span_of(blend))}
        named = outer.union(*mixtures)
        fitting = [i for i, roles in enumerate(self._roles) if outer == {roles.outside} and named <= {*roles}]
        places = (wholes_of(self._axes[key]) for key in ("transition", "begin", "end"))
        for place, width, begin, end in product(fitting, *places):
            roles = self._roles[place]
            if begin <= end and self._mixtures(roles, begin, end, width) == mixtures:
                return genome_of(self._axes, {"roles": place, "begin": begin, "end": end, "transition": width})
        raise SpecError("the recipe is not one expert's layers between those of another")

    def _mixtures(self, roles: _Roles, begin: int, end: int, transition: int) -> list[frozenset[str]]:
        """Whose layer each is, or whose average; where there is nothing outside, nothing is averaged."""
        found = []
        for index in range(self.parents.layers):
            rising = begin > 0 and index < begin + transition
            falling = end < self.parents.layers and index >= end - transition
            names = {roles.outside} if not begin <= index < end else {roles.inside}
            found.append(frozenset({*names, roles.outside} if rising or falling else names))
        return found


def _roles(spec: SwapSpec, parents: Parents) -> list[_Roles]:
    """Who may be outside and inside.

    Raises:
        SpecError: there is no such parent, or nobody to swap with.
    """
    for field, name in (("inside", spec.inside), ("outside", spec.outside)):
        if name is not None and name not in parents.names:
            raise SpecError(f"space.{field}: {name!r} is none of the models; write one of {', '.join(parents.names)}")
    outside = (spec.outside,) if spec.outside else parents.experts
    inside = (spec.inside,) if spec.inside else parents.experts
    found = [_Roles(*pair) for pair in product(outside, inside) if pair[0] != pair[1]]
    if not found:
        raise SpecError("space: layers are swapped between two models; give a second expert")
    for name in {name for pair in found for name in pair}:
        if parents.depth_of(name) != parents.layers:
            raise SpecError(f"space: {name} has {parents.depth_of(name)} layers, not {parents.layers}; leave it out")
    return found


def _blend(names: frozenset[str], layer: int) -> Blend:
    return Blend(operator=Linear(), sources=tuple(Source(parent=name, layer=layer) for name in sorted(names)))


def _mixture(index: int, layer: Layer) -> frozenset[str]:
    """The parents whose layers, or whose average, a layer is."""
    found = {_names(span_of(layer.part(part))) for part in COMPONENTS}
    if len(found) != 1 or {source.layer for source in layer.sources()} != {index} or layer.scale != 1.0:
        raise SpecError(f"layer {index} is not a layer of one expert in its place, or an average")
    return found.pop()


def _names(span: dict[str, float]) -> frozenset[str]:
    if any(abs(weight - 1 / len(span)) > TOLERANCE for weight in span.values()):
        raise SpecError("the recipe weighs its parents, the space averages them")
    return frozenset(span)
