"""The weights that single tensors of a recipe have of their own, told apart for tables and figures."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.recipe.blend import COMPONENTS, Blend
from evomerge.recipe.coefficients import part_of
from evomerge.recipe.recipe import Recipe


class Own(NamedTuple):
    """The weights (n,) of one source in one tensor: its layer, None outside, what it is called there, whose they are.

    A slerp has none, but a `t`.
    """

    layer: int | None
    kind: str
    voice: str
    weights: NDArray[np.float32]


def own_weights(recipe: Recipe) -> list[Own]:
    """All of a recipe, those outside the layers first; none if every tensor is blended as its layer or group is.

    Raises:
        SpecError: its side file is missing, or not the one.
    """
    found, own = [], recipe.coefficients()
    for name, weights in (own.arrays if own is not None else {}).items():
        layer, kind = part_of(name)
        voices = _voices(recipe, layer, len(weights))
        found += [Own(layer, kind, voice, row) for voice, row in zip(voices, weights, strict=True)]
    return sorted(found, key=lambda each: -1 if each.layer is None else each.layer)


def _voices(recipe: Recipe, layer: int | None, count: int) -> tuple[str, ...]:
    """Whose weights a tensor has: which component or group it is of, a recipe does not know, but how many there are."""
    here = None if layer is None else recipe.layers[layer]
    blends = recipe.outer.values() if here is None else [here.part(component) for component in COMPONENTS]
    fitting = (voices for blend in blends if len(voices := _voices_of(blend)) == count)
    return next(fitting, tuple(f"source {place + 1}" for place in range(count)))


def _voices_of(blend: Blend) -> tuple[str, ...]:
    return ("t",) if blend.operator.pair else tuple(source.parent for source in blend.sources)
