"""What a merged model costs, read off its recipe before it is made."""

import math
from typing import assert_never, get_args

from evomerge.checkpoint.anatomy import Anatomy
from evomerge.items import Cost
from evomerge.recipe import Recipe


def costs_of(recipe: Recipe, anatomy: Anatomy) -> dict[Cost, float]:
    """Layers and weights of the model that a recipe makes, as it is exported, tied weights once.

    `anatomy` is that of the model folders, which may have more layers or fewer: an output layer has the weights of the
    layer that it comes from.
    """
    return {cost: float(_cost(cost, recipe, anatomy)) for cost in get_args(Cost)}


def _cost(cost: Cost, recipe: Recipe, anatomy: Anatomy) -> int:
    match cost:
        case "layers":
            return len(recipe.layers)
        case "parameters":
            sizes = {name: math.prod(shape) for name, shape in anatomy.shapes.items()}
            layers = [sum(sizes[name] for name in names) for names in anatomy.inside]
            return sum(sizes[name] for name in anatomy.outside) + sum(layers[origin] for origin in recipe.origins())
        case _:
            assert_never(cost)
