"""Blends as linear combinations of parents, which is how one operator's recipe is read in another's space."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from evomerge.errors import SpecError
from evomerge.recipe import COMPONENTS, NO_SUM, Blend, Layer, Linear, Operator, Recipe, Source
from evomerge.space.genes import TOLERANCE


def refuse_own_weights(recipe: Recipe) -> None:
    """See that no tensor of a recipe is blended otherwise than its layer or group.

    Raises:
        SpecError: one is.
    """
    if recipe.tensors or recipe.arrays is not None:
        raise SpecError("the recipe has weights for single tensors, the space has none")


def folded(recipe: Recipe, tensors: Mapping[str, str]) -> Recipe:
    """The recipe with the weights of its tensors in its blends, where those of a layer's component or a group agree.

    `tensors` says where each is, as `Parents.tensors` does; weights within tensors stay what they are.

    Raises:
        SpecError: they do not agree, or a tensor is not known.
    """
    if not recipe.tensors:
        return recipe

    def made(part: str, blend: Blend) -> Blend:
        names = [name for name, at in tensors.items() if at == part]
        found = {recipe.tensors.get(name, blend.coefficients()) for name in names}
        if len(found) > 1:
            raise SpecError("the recipe has weights for single tensors, the space has none")
        return blend.with_coefficients(found.pop()) if found else blend

    if odd := sorted(recipe.tensors.keys() - tensors.keys()):
        raise SpecError(f"tensors.{odd[0]} is no tensor of these models")
    layers = []
    for index, layer in enumerate(recipe.layers):
        attention, mlp, norm = (made(f"{index}.{part}", layer.part(part)) for part in COMPONENTS)
        mlp_too, norm_too = (None if each == attention else each for each in (mlp, norm))
        layers.append(Layer(blend=attention, mlp=mlp_too, norm=norm_too, scale=layer.scale))
    outer = {group: made(group, blend) for group, blend in recipe.outer.items()}
    return recipe.model_copy(update={"layers": tuple(layers), "outer": outer, "tensors": {}})


def copy_of(parent: str, layer: int | None) -> Blend:
    """The blend that is one parent, unchanged."""
    return Blend(operator=Linear(), sources=(Source(parent=parent, layer=layer),))


def span_of(blend: Blend) -> dict[str, float]:
    """Coefficient of every parent that has one, for a blend that is a linear combination of its parents.

    Raises:
        SpecError: it is none, because values are gated one by one (TIES, DARE) or bent (slerp).
    """
    operator = blend.operator
    if not _is_sum(blend):
        raise SpecError(f"{operator.kind} is not a linear combination of models")
    weights = {source.parent: source.weight for source in blend.sources}
    total = sum(weights.values())
    divisor = total if operator.normalize and abs(total) >= NO_SUM else 1.0
    span = {name: operator.scale * weight / divisor for name, weight in weights.items()}
    if blend.base is not None:
        span[blend.base.parent] = span.get(blend.base.parent, 0.0) + 1 - sum(span.values())
    return {name: weight for name, weight in span.items() if abs(weight) > 1e-12}


def weights_of(span: dict[str, float], operator: Operator, voices: Sequence[str], base: str | None) -> list[float]:
    """Weights of the `voices` with which an operator makes the linear combination `span`: what `span_of` undoes.

    Raises:
        SpecError: there are none, whatever the weights.
    """
    known = {*voices, *((base,) if operator.needs_base else ())}
    if set(span) - known or (operator.needs_base and abs(sum(span.values()) - 1) > TOLERANCE):
        raise SpecError(f"the recipe is not a {operator.kind} of these models")
    weights = [span.get(name, 0.0) for name in voices]
    if operator.sums != "always" and sum(map(bool, weights)) > 1:
        raise SpecError(f"a weighted sum of these models is not a {operator.kind}")
    if not operator.normalize:
        return [weight / operator.scale for weight in weights]
    total, nothing = sum(weights), operator.needs_base and not any(weights)
    if abs(total - operator.scale) > TOLERANCE and not nothing:
        raise SpecError(f"the weights add up to {total:g}, and a {operator.kind} here makes them {operator.scale:g}")
    return weights


def _is_sum(blend: Blend) -> bool:
    """TIES and DARE gate nothing when there is one expert at most, kept whole."""
    match blend.operator.sums:
        case "always":
            return True
        case "alone":
            return len(blend.sources) <= 1 and all(source.density == 1.0 for source in blend.sources)
        case "never":
            return False
        case _:
            assert_never(blend.operator.sums)
