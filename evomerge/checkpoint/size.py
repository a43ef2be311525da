"""What a merged model costs, read off its recipe before it is made."""

import math
from collections import Counter

from evomerge.checkpoint.anatomy import Anatomy
from evomerge.items import Cost
from evomerge.recipe import COMPONENTS, Recipe


def costs_of(recipe: Recipe, anatomy: Anatomy) -> dict[Cost, float]:
    """Layers and weights of the model that a recipe makes, tied weights once.

    `anatomy` is that of the parents, which may have more or fewer layers: an output layer has the weights of the parent
    layers that it is made from, component by component.
    """
    sizes: Counter[tuple[int | None, str]] = Counter()
    for name, place in anatomy.places.items():
        sizes[place.layer, place.part] += math.prod(anatomy.shapes[name])
    outer = sum(size for (layer, _), size in sizes.items() if layer is None)
    # What is blended has the same shape in all of its sources, so that any of them says the size.
    inner = sum(sizes[layer.part(name).everything()[0].layer, name] for layer in recipe.layers for name in COMPONENTS)
    return {"layers": float(len(recipe.layers)), "parameters": float(outer + inner)}
