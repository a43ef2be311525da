"""The coefficient space as written in YAML, and the parts of a model that it gives genes of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias, assert_never

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.errors import SpecError
from evomerge.limits import HOPS, Weight
from evomerge.recipe import COMPONENTS, DENSITY_LEVELS, Component, Grain, Operator, Parents, TaskArithmetic
from evomerge.values import Tagged, by_name

Range: TypeAlias = tuple[Weight, Weight] | Weight
Index: TypeAlias = Annotated[int, Field(ge=0, lt=HOPS)]
Groups: TypeAlias = Literal["layer", "model", "tensor"] | Annotated[int, Field(ge=1)] | tuple[tuple[Index, Index], ...]
RULES = ("own", "join", "base")
RANGE = "a number, or a range [low, high] to search"


class BlendSpec(Tagged):
    """A coefficient space: which operator, which parts of the model have genes of their own, which ranges.

    `outer` says what happens to embeddings, final norm and head: `own` genes, `join` the first and the last
    layer group, or taken unchanged from the `base` or from an expert by its name. `grain` is how finely weights are
    learned, if not a gene each; groups are then where learning begins.
    """

    kind: Literal["blend"] = "blend"
    operator: Annotated[Operator, BeforeValidator(by_name)] = TaskArithmetic()
    groups: Groups = Field(
        default="layer", description="layer, model, tensor, how many, or ranges like [[0, 3], [4, 7]]"
    )
    components: Literal["all", "split"] = "all"
    outer: str = "own"
    weight: Range | None = Field(default=None, description=f"{RANGE}, from -1e6 to 1e6")
    density: Range = Field(default=1.0, description=RANGE)
    grain: Grain | Literal["auto"] | None = None

    @field_validator("weight", "density")
    @classmethod
    def _upright(cls, value: Range | None) -> Range | None:
        if isinstance(value, tuple) and value[0] >= value[1]:
            raise ValueError(f"is upside down or empty; write [low, high], here [{value[1]:g}, {value[0]:g}]")
        return value

    @field_validator("density")
    @classmethod
    def _fraction(cls, value: Range) -> Range:
        low, high = ends(value)
        if low < 0 or high > 1:
            raise ValueError("is not a fraction of a task vector; give values from 0 to 1")
        snapped = tuple(round(end * DENSITY_LEVELS) / DENSITY_LEVELS for end in (low, high))
        if isinstance(value, tuple) and (abs(snapped[0] - low) > 1e-9 or abs(snapped[1] - high) > 1e-9):
            raise ValueError(f"is searched in steps of {1 / DENSITY_LEVELS:g}; write [{snapped[0]:g}, {snapped[1]:g}]")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        kind = self.operator.kind
        if self.outer == "join" and self.components == "split":
            raise ValueError("outer: join needs components: all; with components: split write outer: own")
        if self.groups == "tensor" and (self.components, self.outer == "join") != ("all", False):
            raise ValueError("groups: tensor gives each tensor genes of its own; leave out components and outer: join")
        if self.groups == "tensor" and isinstance(self.density, tuple):
            raise ValueError("groups: tensor searches weights by tensor, and no density; give one number for that")
        if self.density != 1.0 and not self.operator.takes_density:
            raise ValueError(f"{kind} has no density; leave the key out, or use ties or dare_ties")
        if self.operator.normalize and self.weights[0] < 0:
            # The divisor is a sum of weights: near zero, the merged delta is a thousand times any expert's.
            raise ValueError(f"{kind} with normalize: true takes no negative weights; begin the weight range at 0")
        if self.operator.scale == 0:
            raise ValueError(f"{kind} with lambda: 0 is the base whatever the weights; give another lambda")
        return self

    @property
    def weights(self) -> tuple[float, float]:
        """Lower and upper end of the weights, equal if the weight is fixed."""
        if self.weight is None:
            return (0.0, 1.5) if self.operator.needs_base else (0.0, 1.0)
        return ends(self.weight)


def ends(value: Range) -> tuple[float, float]:
    """Both ends of a range, a number being a range of length zero."""
    return value if isinstance(value, tuple) else (value, value)


@dataclass(frozen=True)
class Slot:
    """A part of the model that shares its genes: a layer range or one component of it, perhaps outer groups."""

    name: str
    first: int = 0
    last: int = -1
    component: Component | None = None
    outer: tuple[str, ...] = ()

    def has(self, layer: int | None, part: str) -> bool:
        """Whether a tensor is in it: of a layer and a component, or of an outer group."""
        if layer is None:
            return part in self.outer
        return self.first <= layer <= self.last and self.component in (None, part)


def slots_of(spec: BlendSpec, parents: Parents) -> list[Slot]:
    """The parts of this model that the space gives genes of their own, in the order of the genome.

    Raises:
        SpecError: the layer ranges do not cover the model once.
    """
    slots = []
    ranges = _layer_ranges(spec, parents.layers)
    parts: tuple[Component | None, ...] = COMPONENTS if spec.components == "split" else (None,)
    for first, last in ranges:
        name = f"layers.{first}" if first == last else f"layers.{first}-{last}"
        outer = _joined(spec, parents, first == 0, last == parents.layers - 1)
        if len(ranges) == 1 and outer == parents.outer:
            name = "model"
        slots += [Slot(f"{name}.{part}" if part else name, first, last, part, outer) for part in parts]
    if spec.outer == "own":
        slots += [Slot(name, outer=(name,)) for name in parents.outer]
    return slots


def _joined(spec: BlendSpec, parents: Parents, at_start: bool, at_end: bool) -> tuple[str, ...]:
    if spec.outer != "join":
        return ()
    return tuple(name for name in parents.outer if (at_start if name == "embeddings" else at_end))


def _layer_ranges(spec: BlendSpec, layers: int) -> Sequence[tuple[int, int]]:
    match spec.groups:
        case "layer":
            return [(i, i) for i in range(layers)]
        case "model":
            return [(0, layers - 1)]
        case "tensor":
            raise SpecError("space.blend.groups: tensor is for a space of coefficients alone; write layer")
        case int(count):
            if count > layers:
                raise SpecError(
                    f"space.groups: {count} is more than the model's {layers} layers; write {layers} or less"
                )
            return [(i * layers // count, (i + 1) * layers // count - 1) for i in range(count)]
        case tuple(ranges):
            return _explicit(sorted(ranges), layers)
        case _:
            assert_never(spec.groups)


def _explicit(ranges: Sequence[tuple[int, int]], layers: int) -> Sequence[tuple[int, int]]:
    expected = 0
    for first, last in ranges:
        if first != expected or last < first:
            raise SpecError(
                f"space.groups: [{first}, {last}] does not follow on; the next range must begin at layer {expected}"
                " (ranges are inclusive and cover every layer once)"
            )
        expected = last + 1
    if expected != layers:
        raise SpecError(f"space.groups: the ranges end at layer {expected - 1}; the model's last layer is {layers - 1}")
    return ranges


def check(spec: BlendSpec, parents: Parents) -> None:
    """Refuse a space that these parents cannot fill.

    Raises:
        SpecError: the operator needs a base or another number of models; `outer` names nobody.
    """
    kind = spec.operator.kind
    odd = [name for name in parents.names if parents.depth_of(name) != parents.layers]
    if odd:
        raise SpecError(
            f"models.experts: {odd[0]!r} has {parents.depth_of(odd[0])} layers, the model folders have"
            f" {parents.layers}, and a blend mixes models of one depth; leave it out, or search another space"
        )
    taken = [name for name in parents.experts if name in RULES]
    if taken:
        raise SpecError(f"models.experts: {taken[0]!r} has a meaning of its own in a space; choose another name")
    if spec.operator.needs_base and parents.base is None:
        raise SpecError(f"space.operator: {kind} works on task vectors and needs models.base; name it, or use linear")
    if spec.operator.pair and len(pair_of(parents)) != 2:
        raise SpecError(
            f"space.operator: {kind} takes two models, here are {len(parents.experts)} experts"
            f"{' and a base' if parents.base else ''}; give two experts, or a base and one expert"
        )
    if spec.outer not in RULES and spec.outer not in parents.experts:
        known = ", ".join((*RULES, *parents.experts))
        raise SpecError(f"space.outer: {spec.outer!r} is neither a rule nor an expert; write one of {known}")
    if spec.outer == "base" and parents.base is None:
        raise SpecError("space.outer: base needs models.base; name it, or write own")


def pair_of(parents: Parents) -> tuple[str, ...]:
    """The models that an operator of two, as slerp, goes between: two experts, or the base and the one expert."""
    if len(parents.experts) == 1 and parents.base is not None:
        return (parents.base, parents.experts[0])
    return parents.experts
