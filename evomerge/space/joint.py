"""Coefficients and path together: hops are layers of a blend that is searched at the same time."""

from typing import Annotated, ClassVar, Literal, TypeAlias, assert_never

from pydantic import Field, field_validator

from evomerge.errors import SpecError
from evomerge.recipe import Blend, Folder, Layer, Parents, Recipe, Source
from evomerge.space.blend import BlendSpace
from evomerge.space.path import PathSpace, PathSpec
from evomerge.space.repeat import RepeatSpace, RepeatSpec
from evomerge.space.span import copy_of, refuse_own_weights
from evomerge.space.spec import BlendSpec, slots_of
from evomerge.space.stack import StackSpace, StackSpec
from evomerge.values import Genome, Tagged

MERGED = "merged"
"""What the path of a joint space calls the blend."""
RouteSpec: TypeAlias = Annotated[PathSpec | StackSpec | RepeatSpec, Field(discriminator="kind")]


class JointSpec(Tagged):
    """A coefficient space and a space of paths through what it makes, searched together (Akiba et al. 2024).

    In `path`, `merged` is the blend: it is the anchor and the only one whose layers are hops, unless it says otherwise.
    """

    kind: Literal["joint"] = "joint"
    grain: ClassVar[None] = None
    blend: BlendSpec
    path: RouteSpec

    @field_validator("blend")
    @classmethod
    def _is_searched(cls, blend: BlendSpec) -> BlendSpec:
        if blend.grain is not None:
            raise ValueError("has a grain, and what is learned has no path; leave it out, or learn in a stage before")
        return blend

    @field_validator("path")
    @classmethod
    def _begins_and_ends_merged(cls, path: RouteSpec) -> RouteSpec:
        if path.anchor not in (None, MERGED):
            raise ValueError("has another anchor than the blend, whose outer tensors no gene would reach; leave it out")
        return path


class JointSpace:
    """A joint space bound to its parents; see `SearchSpace`. The genes of the blend come first.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: JointSpec, parents: Parents) -> None:
        if MERGED in parents.names:
            raise SpecError(f"models.experts: {MERGED!r} is what a joint space calls its blend; choose another name")
        self.parents = parents
        self._blend = BlendSpace(spec.blend, parents)
        self._slots = slots_of(spec.blend, parents)
        self._path = route_space(_towards_merged(spec.path), _with_merged(parents))
        self.genes = (*self._blend.genes, *self._path.genes)

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        count = len(self._blend.genes)
        merged, path = self._blend.decode(genome[:count]), self._path.decode(genome[count:])
        layers = tuple(_inlined(layer, merged) for layer in path.layers)
        outer = {group: merged.outer[group] if _is_merged(blend) else blend for group, blend in path.outer.items()}
        return self.parents.recipe(layers, outer)

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`; what it does not show of the blend is taken from the nearest layer.

        Raises:
            SpecError: the recipe is not in the space.
        """
        refuse_own_weights(recipe)
        try:
            return self._encoded(recipe, copies=True)
        except SpecError:
            return self._encoded(recipe, copies=False)

    def _encoded(self, recipe: Recipe, *, copies: bool) -> Genome:
        """The genome; `copies` takes layers that are one parent's for hops of that parent, not of the blend."""
        places = [_index(number, layer) for number, layer in enumerate(recipe.layers)]
        plain = [layer.model_copy(update={"scale": 1.0}) for layer in recipe.layers]
        blends: dict[int, Layer] = {}
        mixtures = [layer for layer in plain if not _is_copy(layer)]
        for place, layer in zip(places, plain, strict=True):
            if not (copies and mixtures and _is_copy(layer)):
                blends.setdefault(place, layer)
        hops = [
            _merged_hop(place, layer) if blends.get(place) == bare else layer
            for place, bare, layer in zip(places, plain, recipe.layers, strict=True)
        ]
        outer = {group: copy_of(MERGED, None) for group in recipe.outer}
        shown = self.parents.recipe(self._completed(blends), recipe.outer)
        return (*self._blend.encode(shown), *self._path.encode(self._path.parents.recipe(tuple(hops), outer)))

    def _slot(self, index: int) -> int:
        """The first of the blend's slots that a layer is in."""
        return next(i for i, slot in enumerate(self._slots) if slot.first <= index <= slot.last)

    def _completed(self, blends: dict[int, Layer]) -> tuple[Layer, ...]:
        """The blend's layers; one that the path leaves out is made as the nearest that shares its genes, or as any."""
        found = []
        for index in range(self.parents.layers):
            nearest = min(blends, key=lambda known: (self._slot(known) != self._slot(index), abs(known - index), known))
            found.append(_moved(blends[nearest], index))
        return tuple(found)


def route_space(spec: PathSpec | StackSpec | RepeatSpec, parents: Parents) -> PathSpace | StackSpace | RepeatSpace:
    """The space of paths that `spec` describes, over these parents.

    Raises:
        SpecError: the parents cannot fill the space.
    """
    match spec:
        case PathSpec():
            return PathSpace(spec, parents)
        case StackSpec():
            return StackSpace(spec, parents)
        case RepeatSpec():
            return RepeatSpace(spec, parents)
        case _:
            assert_never(spec)


def _towards_merged(spec: PathSpec | StackSpec | RepeatSpec) -> PathSpec | StackSpec | RepeatSpec:
    anchor = spec.anchor or MERGED
    match spec:
        case PathSpec() | StackSpec():
            return spec.model_copy(update={"anchor": anchor, "parents": spec.parents or (MERGED,)})
        case RepeatSpec():
            return spec.model_copy(update={"anchor": anchor})
        case _:
            assert_never(spec)


def _with_merged(parents: Parents) -> Parents:
    """The parents with one more, which stands for the blend."""
    models = {**parents.models, MERGED: Folder(path=MERGED)}
    return parents.model_copy(update={"models": models, "experts": (*parents.experts, MERGED)})


def _inlined(layer: Layer, merged: Recipe) -> Layer:
    """A hop with the blend's own layer in it, where it is the blend's."""
    if not _is_merged(layer.blend):
        return layer
    index = layer.blend.sources[0].layer
    assert index is not None, "hops have layers"
    return merged.layers[index].model_copy(update={"scale": layer.scale})


def _merged_hop(place: int, layer: Layer) -> Layer:
    return Layer(blend=copy_of(MERGED, place), scale=layer.scale)


def _is_copy(layer: Layer) -> bool:
    sources = layer.sources()
    return layer == Layer(blend=copy_of(sources[0].parent, sources[0].layer))


def _is_merged(blend: Blend) -> bool:
    return {source.parent for source in blend.sources} == {MERGED}


def _index(number: int, layer: Layer) -> int:
    """The layer of the parents that all parts of a layer come from.

    Raises:
        SpecError: there are several.
    """
    places = {source.layer for source in layer.sources()}
    if len(places) != 1 or None in places:
        raise SpecError(f"layer {number} mixes layers of different places, the space keeps them apart")
    return int(places.pop() or 0)


def _moved(layer: Layer, index: int) -> Layer:
    """The same blends of another layer of the parents."""

    def there(source: Source) -> Source:
        return source.model_copy(update={"layer": index})

    def moved(blend: Blend | None) -> Blend | None:
        if blend is None:
            return None
        base = there(blend.base) if blend.base else None
        return blend.model_copy(update={"base": base, "sources": tuple(map(there, blend.sources))})

    parts = {part: moved(getattr(layer, part)) for part in ("blend", "attention", "mlp", "norm")}
    return layer.model_copy(update=parts)
