"""The coefficient space: the same layer of every expert, blended with searched weights and densities."""

from itertools import chain
from typing import TypeAlias, assert_never

from evomerge.errors import SpecError
from evomerge.recipe import (
    COMPONENTS,
    DENSITY_LEVELS,
    Blend,
    Layer,
    Operator,
    Parents,
    Recipe,
    Slerp,
    Source,
    Weighted,
)
from evomerge.space.genes import TOLERANCE, Gene
from evomerge.space.span import copy_of, refuse_own_weights, span_of, weights_of
from evomerge.space.spec import BlendSpec, Slot, check, ends, pair_of, slots_of
from evomerge.values import Genome

Share: TypeAlias = tuple[float, float]
"""One expert's part in a slot: weight and density. For slerp the only weight is t."""


class BlendSpace:
    """A coefficient space bound to its parents; see `SearchSpace`.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: BlendSpec, parents: Parents, *, whole: bool = False) -> None:
        """With `whole`, experts of weight 0 are written out."""
        check(spec, parents)
        self._whole = whole
        self.spec = spec
        self.parents = parents
        self._slots = slots_of(spec, parents)
        self._axes = {slot: self._axes_of(slot) for slot in self._slots}
        self.genes = tuple(axis for axes in self._axes.values() for axis in axes if isinstance(axis, Gene))

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total, every genome of the right length is some recipe."""
        units = iter(genome)
        shares = {}
        for slot, axes in self._axes.items():
            values = [axis.value(next(units)) if isinstance(axis, Gene) else axis for axis in axes]
            shares[slot] = list(zip(values[::2], values[1::2], strict=True))
        layers = tuple(self._layer(index, shares) for index in range(self.parents.layers))
        return self.parents.recipe(layers, {name: self._outer(name, shares) for name in self.parents.outer})

    def frame(self, genome: Genome) -> Recipe:
        """The recipe a genome names, with every expert in every blend, also where its weight is 0."""
        return BlendSpace(self.spec, self.parents, whole=True).decode(genome)

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        refuse_own_weights(recipe)
        genome = []
        for slot, axes in self._axes.items():
            for axis, value in zip(axes, chain(*self._shares_in(recipe, slot)), strict=True):
                if isinstance(axis, Gene):
                    genome.append(axis.unit(value))
                    if abs(axis.value(genome[-1]) - value) > TOLERANCE:
                        raise SpecError(f"{axis.name} is {value:g}, between two steps of the space")
                elif abs(axis - value) > TOLERANCE:
                    raise SpecError(f"{slot.name} has {value:g} where the space fixes {axis:g}")
        if self.spec.outer not in ("own", "join"):
            kept = {name: self._outer(name, {}) for name in self.parents.outer}
            if kept != recipe.outer:
                raise SpecError(f"embeddings, norm and head are not all those of {self.spec.outer}")
        return tuple(genome)

    def _axes_of(self, slot: Slot) -> list[Gene | float]:
        """Weight and density of every expert in turn: a gene where a range is searched, else the number."""
        axes: list[Gene | float] = []
        low, high = self.spec.weights
        for voice in self._voices():
            parts = (voice, "" if slot.name == "model" and voice else slot.name)
            stem = ".".join(part for part in parts if part)
            axes.append(Gene(name=f"{stem}.{'weight' if voice else 't'}", low=low, high=high) if low < high else low)
            axes.append(self._density_axis(f"{stem}.density"))
        return axes

    def _density_axis(self, name: str) -> Gene | float:
        first, last = (round(end * DENSITY_LEVELS) for end in ends(self.spec.density))
        if not isinstance(self.spec.density, tuple):
            return self.spec.density
        return Gene(name=name, low=first / DENSITY_LEVELS, high=last / DENSITY_LEVELS, levels=last - first)

    def _voices(self) -> tuple[str, ...]:
        return ("",) if self.spec.operator.pair else self.parents.experts

    def _layer(self, index: int, shares: dict[Slot, list[Share]]) -> Layer:
        here = {slot.component: slot for slot in self._slots if slot.first <= index <= slot.last}
        if None in here:
            return Layer(blend=self._blend(index, shares[here[None]]))
        attention, mlp, norm = (self._blend(index, shares[here[part]]) for part in COMPONENTS)
        # A component that is blended like the attention is not named again: one spelling per model.
        return Layer(blend=attention, mlp=None if mlp == attention else mlp, norm=None if norm == attention else norm)

    def _outer(self, name: str, shares: dict[Slot, list[Share]]) -> Blend:
        for slot in self._slots:
            if name in slot.outer:
                return self._blend(None, shares[slot])
        parent = self.parents.base if self.spec.outer == "base" else self.spec.outer
        assert parent is not None, "checked when the space was bound"
        return copy_of(parent, None)

    def _blend(self, layer: int | None, shares: list[Share]) -> Blend:
        match operator := self.spec.operator:
            case Slerp():
                sources = tuple(Source(parent=name, layer=layer) for name in pair_of(self.parents))
                return Blend(operator=Slerp(t=shares[0][0]), sources=sources)
            case Weighted():
                return self._weighted(operator, layer, shares)
            case _:
                assert_never(operator)

    def _weighted(self, operator: Operator, layer: int | None, shares: list[Share]) -> Blend:
        if not operator.needs_base and not any(weight for weight, _ in shares):
            # Nothing of everything has no meaning; equal parts is where it leads along the diagonal.
            shares = [(1.0, density) for _, density in shares]
        sources = tuple(
            Source(parent=name, layer=layer, weight=weight, density=density)
            for name, (weight, density) in zip(self.parents.experts, shares, strict=True)
            if weight or self._whole
        )
        base = Source(parent=self.parents.base, layer=layer) if operator.needs_base and self.parents.base else None
        return Blend(operator=operator, base=base, sources=sources)

    def _shares_in(self, recipe: Recipe, slot: Slot) -> list[Share]:
        """What a recipe does in a slot, which must be the same in all its layers and outer groups."""
        if len(recipe.layers) != self.parents.layers:
            raise SpecError(f"the recipe has {len(recipe.layers)} layers, the parents have {self.parents.layers}")
        if any(layer.scale != 1.0 for layer in recipe.layers):
            raise SpecError("the recipe scales layers' inputs, the space does not")
        components = (slot.component,) if slot.component else COMPONENTS
        places = [(recipe.layers[i].part(part), i) for i in range(slot.first, slot.last + 1) for part in components]
        outer = [(recipe.outer[name], None) for name in slot.outer if name in recipe.outer]
        found = [self.shares(blend, layer) for blend, layer in (*places, *outer)]
        if not all(_close(found[0], other) for other in found[1:]):
            raise SpecError(f"the recipe varies within {slot.name}, where the space has one gene an expert")
        return found[0]

    def shares(self, blend: Blend, layer: int | None) -> list[Share]:
        """What a blend is in the space's operator, one share an expert.

        Raises:
            SpecError: it is none of these, or of another layer.
        """
        if any(source.layer != layer for source in (*blend.sources, *((blend.base,) if blend.base else ()))):
            raise SpecError("the recipe moves layers, the space keeps every layer in its place")
        match operator := self.spec.operator:
            case Slerp():
                return [(_slerp_t(blend, pair_of(self.parents)), 1.0)]
            case Weighted():
                return self._weights_in(blend, operator)
            case _:
                assert_never(operator)

    def _weights_in(self, blend: Blend, operator: Operator) -> list[Share]:
        idle = ends(self.spec.density)[1]
        own = {source.parent: (source.weight, source.density) for source in blend.sources}
        if blend.operator == operator and set(own) <= set(self.parents.experts):
            return [own.get(name, (0.0, idle)) for name in self.parents.experts]
        weights = weights_of(span_of(blend), operator, self.parents.experts, self.parents.base)
        if any(weights) and idle != 1.0:
            raise SpecError(f"a {blend.operator.kind} of these experts is not a {operator.kind}")
        return [(weight, idle) for weight in weights]


def _close(one: list[Share], other: list[Share]) -> bool:
    return all(abs(a - b) <= TOLERANCE for a, b in zip(chain(*one), chain(*other), strict=True))


def _slerp_t(blend: Blend, between: tuple[str, ...]) -> float:
    if isinstance(blend.operator, Slerp) and tuple(source.parent for source in blend.sources) == between:
        return blend.operator.t
    span = span_of(blend)
    if list(span) in ([between[0]], [between[1]]):
        return 0.0 if between[0] in span else 1.0
    raise SpecError("the recipe is not a slerp of these two models")
