"""What a merged model costs, read off its recipe before it is made."""

import math

from evomerge.checkpoint.anatomy import Anatomy
from evomerge.items import Cost
from evomerge.recipe import Recipe


def costs_of(recipe: Recipe, anatomy: Anatomy) -> dict[Cost, float]:
    """Layers and weights of the model that a recipe makes, as it is exported, tied weights once.

    `anatomy` is that of the model folders, which may have more layers or fewer: an output layer has the weights of the
    layer that it comes from.
    """
    sizes = {name: math.prod(shape) for name, shape in anatomy.shapes.items()}
    layers = [sum(sizes[name] for name in names) for names in anatomy.inside]
    weights = sum(sizes[name] for name in anatomy.outside) + sum(layers[origin] for origin in recipe.origins())
    return {"layers": float(len(recipe.layers)), "parameters": float(weights)}
