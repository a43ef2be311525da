"""The one thing that is merged anywhere, a blend of parents, and a layer made of blends."""

from typing import Annotated, Literal, Self, TypeAlias, assert_never

from pydantic import Field, model_validator

from evomerge.limits import HOPS, Weight
from evomerge.recipe.operators import Linear, Operator, Slerp, Weighted
from evomerge.values import Value

Component: TypeAlias = Literal["attention", "mlp", "norm"]
COMPONENTS: tuple[Component, ...] = ("attention", "mlp", "norm")

Density: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
NO_SUM = 1e-8
"""Weights that sum to less are not divided by their sum."""
DENSITY_LEVELS = 200
"""Densities are searched in steps of one over this; so one sort of a task vector serves all of them."""


class Source(Value):
    """One parent's share in a blend; `layer` is None outside the stack of layers."""

    parent: str
    layer: int | None = Field(None, ge=0, lt=HOPS)
    weight: Weight = 1.0
    density: Density = 1.0


class Blend(Value):
    """The one thing that is merged anywhere: an operator over sources, and a base where it needs one."""

    operator: Operator = Linear()
    base: Source | None = None
    sources: tuple[Source, ...] = ()

    @model_validator(mode="after")
    def _fits_operator(self) -> Self:
        operator = self.operator
        if operator.pair and len(self.sources) != 2:
            raise ValueError(f"{operator.kind} takes exactly two sources, here are {len(self.sources)}")
        if not operator.needs_base and not self.sources:
            raise ValueError(f"{operator.kind} needs at least one source")
        if (self.base is not None) != operator.needs_base:
            raise ValueError(f"{operator.kind} {'needs a' if operator.needs_base else 'takes no'} base")
        return self

    @model_validator(mode="after")
    def _says_what_is_read(self) -> Self:
        kind, told = self.operator.kind, [(s.weight, s.density) for s in self.sources]
        if self.base is not None and (self.base.weight, self.base.density) != (1.0, 1.0):
            raise ValueError(f"the base of {kind} has neither weight nor density; leave them out")
        if self.operator.pair and any(weight != 1.0 for weight, _ in told):
            raise ValueError(f"{kind} reads no weights, but a constant of its own; leave them out")
        if not self.operator.takes_density and any(density != 1.0 for _, density in told):
            raise ValueError(f"{kind} reads no density; leave it out, or use ties or dare_ties")
        if isinstance(self.operator, Linear) and self.operator.normalize and abs(sum(w for w, _ in told)) < NO_SUM:
            raise ValueError("weights sum to 0, and normalize divides by that; give others, or normalize: false")
        return self

    def everything(self) -> tuple[Source, ...]:
        """The sources and, if there is one, the base."""
        return (*self.sources, *((self.base,) if self.base else ()))

    def weights(self) -> tuple[float, ...]:
        """The share that each source has in the blend (sources,), by which tables and figures show it."""
        return self.operator.shares([source.weight for source in self.sources])

    def coefficients(self) -> tuple[float, ...]:
        """What a tensor may have of its own: the weights of the sources, in their order, or slerp's t."""
        match operator := self.operator:
            case Slerp():
                return (operator.t,)
            case Weighted():
                return tuple(source.weight for source in self.sources)
            case _:
                assert_never(operator)

    def with_coefficients(self, values: tuple[float, ...]) -> "Blend":
        """The same with others of these."""
        match operator := self.operator:
            case Slerp():
                (t,) = values
                return self.model_copy(update={"operator": operator.model_copy(update={"t": t})})
            case Weighted():
                pairs = zip(self.sources, values, strict=True)
                sources = tuple(source.model_copy(update={"weight": weight}) for source, weight in pairs)
                return self.model_copy(update={"sources": sources})
            case _:
                assert_never(operator)

    def parents(self) -> set[str]:
        """Names of the parents this blend reads."""
        return {source.parent for source in self.everything()}


class Layer(Value):
    """One layer of the merged model: a blend, and other blends for the components that differ from it.

    `scale` is what the residual stream is multiplied by before the layer (Akiba et al. 2024); see `Recipe.gains`.
    """

    blend: Blend
    attention: Blend | None = None
    mlp: Blend | None = None
    norm: Blend | None = None
    scale: float = Field(1.0, ge=1e-3, le=1e3)

    def part(self, component: Component) -> Blend:
        """The blend of one component."""
        override: Blend | None = getattr(self, component)
        return self.blend if override is None else override

    def sources(self) -> tuple[Source, ...]:
        """All that it is made of, over its components."""
        return tuple(source for component in COMPONENTS for source in self.part(component).everything())
