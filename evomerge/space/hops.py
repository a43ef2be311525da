"""What spaces of paths share: whose layers may be hops, how many, and a recipe that is nothing but hops."""

from collections.abc import Mapping, Sequence
from itertools import permutations, product
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import Field, field_validator

from evomerge.errors import SpecError
from evomerge.limits import GENES, HOPS
from evomerge.recipe import COMPONENTS, Layer, Parents, Recipe
from evomerge.space.genes import DECIMALS, TOLERANCE, Gene
from evomerge.space.span import copy_of, refuse_own_weights, span_of
from evomerge.space.spec import RANGE, ends
from evomerge.values import Genome, Tagged

Key = TypeVar("Key")
Bound: TypeAlias = Annotated[int, Field(ge=1, le=HOPS)] | Annotated[float, Field(gt=0, le=HOPS)]
Anchored: TypeAlias = Literal["anchor"] | Annotated[tuple[str, ...], Field(min_length=1)]
CUTS = (0.25, 0.5, 0.75)
"""Where models are cut, in shares of their depth, for stacks to begin a search with."""
LEAST_SCALE = 1e-3
SHORTEST = 2
"""Hops of the shortest path: the anchor's first and last layer."""


class HopsSpec(Tagged):
    """What every space of paths says.

    `anchor` is the parent whose embeddings, final norm and head are used (left out: the first expert); `parents` are
    those whose layers may be hops (left out: all experts and the anchor). `scale` is what the residual
    stream may be multiplied by before a hop. `depth` bounds the number of hops; numbers with a point are multiples
    of the anchor's depth.
    """

    kind: Any
    grain: ClassVar[None] = None
    anchor: str | None = None
    parents: Anchored | None = Field(default=None, description="anchor, or a list of parents")
    scale: tuple[float, float] | float | None = Field(default=None, description=RANGE)
    depth: tuple[Bound, Bound] | None = Field(default=None, description="the shortest and the longest, [4, 16]")

    @field_validator("scale")
    @classmethod
    def _has_one(cls, scale: tuple[float, float] | float | None) -> tuple[float, float] | float | None:
        low, high = ends(1.0 if scale is None else scale)
        if not LEAST_SCALE <= low <= 1 <= high <= 1 / LEAST_SCALE:
            raise ValueError("does not lie in 0.001 to 1000, or leaves out 1; every search begins unscaled, at 1")
        return scale


class Hop(NamedTuple):
    """One parent's layer, and what the residual stream is multiplied by before it."""

    parent: str
    layer: int
    scale: float = 1.0

    @property
    def name(self) -> str:
        """What genes call it."""
        return f"{self.parent}.layers.{self.layer}"


def anchor_of(spec: HopsSpec, parents: Parents) -> str:
    """The anchor.

    Raises:
        SpecError: there is no such parent, or it is too shallow for a path.
    """
    anchor = spec.anchor or parents.experts[0]
    if anchor not in parents.names:
        raise SpecError(f"space.anchor: {anchor!r} is none of the models; write one of {', '.join(parents.names)}")
    if parents.depth_of(anchor) < SHORTEST:
        raise SpecError(f"space.anchor: {anchor!r} has one layer, and a path begins and ends with its own")
    return anchor


def givers_of(spec: HopsSpec, parents: Parents, anchor: str) -> tuple[str, ...]:
    """The parents whose layers may be hops: in the order that is written down, else the anchor first.

    Raises:
        SpecError: there is no such parent.
    """
    if spec.parents == "anchor":
        return (anchor,)
    named = spec.parents or (anchor, *parents.experts)
    for name in named:
        if name not in parents.names:
            raise SpecError(f"space.parents: {name!r} is none of the models; write some of {', '.join(parents.names)}")
    return tuple(dict.fromkeys(named))


def bounds_of(spec: HopsSpec, parents: Parents, anchor: str, most: int) -> tuple[int, int]:
    """Hops of the shortest and of the longest path, `most` being all that the space has.

    Raises:
        SpecError: the bounds are upside down, or the space has no path of such length.
    """
    if spec.depth is None:
        check_size(most, 0)
        return SHORTEST, most
    own = parents.depth_of(anchor)
    low, high = (round(bound * own) if isinstance(bound, float) else bound for bound in spec.depth)
    if not SHORTEST <= low <= min(high, most):
        raise SpecError(
            f"space.depth: {low} to {high} hops are asked for, and the space has paths of {SHORTEST} to {most};"
            " give the shortest first, or let the layers be repeated more often"
        )
    check_size(min(high, most), 0)
    return low, min(high, most)


def check_size(hops: int, genes: int) -> None:
    """Refuse a space that is too large to be laid out.

    Raises:
        SpecError: with the number.
    """
    if hops > HOPS:
        raise SpecError(
            f"space: its longest path has {hops:,} layers, a merged model has {HOPS:,} at most; repeat less, or bound"
            " its depth"
        )
    if genes > GENES:
        raise SpecError(
            f"space: it has {genes:,} genes, a search takes {GENES:,} at most; give layers fewer genes, repeat less, or"
            " learn weights (grain)"
        )


def scale_axis(name: str, spec: HopsSpec) -> Gene | float:
    """A gene for a scale, or its number where it is fixed."""
    low, high = ends(1.0 if spec.scale is None else spec.scale)
    return Gene(name=name, low=low, high=high) if low < high else low


def integer(name: str, low: int, high: int) -> Gene | float:
    """A gene for a whole number, or the number where there is only one."""
    return Gene(name=name, low=low, high=high, levels=high - low, kind="integer") if low < high else float(low)


def category(name: str, count: int) -> Gene | float:
    """A gene for one of so many, by its place, or the place where there is only one."""
    return Gene(name=name, low=0, high=count - 1, levels=count - 1, kind="categorical") if count > 1 else 0.0


def wholes_of(axis: Gene | float) -> range:
    """The whole numbers of an axis."""
    low, high = (axis.low, axis.high) if isinstance(axis, Gene) else (axis, axis)
    return range(int(low), int(high) + 1)


def values_of(axes: Mapping[Key, Gene | float], genome: Genome) -> dict[Key, float]:
    """The number on every axis: a gene's, or the one that is fixed."""
    units = iter(genome)
    return {key: axis.value(next(units)) if isinstance(axis, Gene) else axis for key, axis in axes.items()}


def genome_of(axes: Mapping[Key, Gene | float], values: Mapping[Key, float]) -> Genome:
    """The genome that stands for these numbers.

    Raises:
        SpecError: one lies outside its gene's range.
    """
    return tuple(axis.unit(values[key]) for key, axis in axes.items() if isinstance(axis, Gene))


def genes_of(axes: Mapping[Key, Gene | float]) -> tuple[Gene, ...]:
    """What is searched of the axes."""
    return tuple(axis for axis in axes.values() if isinstance(axis, Gene))


def recipe_of(parents: Parents, anchor: str, hops: Sequence[Hop]) -> Recipe:
    """The recipe that is these hops between the anchor's outer tensors."""
    layers = tuple(Layer(blend=copy_of(hop.parent, hop.layer), scale=hop.scale) for hop in hops)
    return parents.recipe(layers, {name: copy_of(anchor, None) for name in parents.outer})


def hops_of(recipe: Recipe, anchor: str) -> list[Hop]:
    """The hops that a recipe is.

    Raises:
        SpecError: it has layers that are blends, or outer tensors that are not the anchor's.
    """
    refuse_own_weights(recipe)
    for group, blend in recipe.outer.items():
        if _copied(span_of(blend)) != anchor:
            raise SpecError(f"its {group} is not that of {anchor}, the anchor")
    return [_hop(index, layer) for index, layer in enumerate(recipe.layers)]


def halves(parents: Parents, givers: Sequence[str]) -> list[list[Hop]]:
    """Beginnings of one model before endings of another, with one layer of overlap or none: the usual frankenmerges."""
    found = []
    for (one, other), part, overlap in product(permutations(givers, 2), CUTS, (0, 1)):
        cut = round(part * min(parents.depth_of(one), parents.depth_of(other)))
        ending = range(max(0, cut - overlap), parents.depth_of(other))
        found.append([*(Hop(one, layer) for layer in range(cut)), *(Hop(other, layer) for layer in ending)])
    return found


def same_hops(one: Sequence[Hop], other: Sequence[Hop]) -> bool:
    """Whether two paths are the same but for rounding."""
    return len(one) == len(other) and all(
        a[:2] == b[:2] and abs(a.scale - b.scale) <= TOLERANCE for a, b in zip(one, other, strict=True)
    )


def _hop(index: int, layer: Layer) -> Hop:
    parts = {part: _copied(span_of(layer.part(part))) for part in COMPONENTS}
    parent, places = parts["attention"], {source.layer for source in layer.sources()}
    if parent is None or set(parts.values()) != {parent} or len(places) != 1:
        raise SpecError(f"layer {index} is not one parent's layer, unchanged")
    return Hop(parent, places.pop() or 0, round(layer.scale, DECIMALS))


def _copied(span: dict[str, float]) -> str | None:
    """The parent that this combination is, if it is one."""
    alone = len(span) == 1 and all(abs(weight - 1) <= TOLERANCE for weight in span.values())
    return next(iter(span)) if alone else None
