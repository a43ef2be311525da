"""What to merge, in one normal form."""

from evomerge.recipe.blend import COMPONENTS, DENSITY_LEVELS, NO_SUM, Blend, Component, Layer, Source
from evomerge.recipe.coefficients import FILE, Arrays, Carried, Coefficients, FineGrain, Grain, count_of
from evomerge.recipe.operators import DareTies, Linear, Operator, Slerp, TaskArithmetic, Ties, Weighted
from evomerge.recipe.own import Own, own_weights
from evomerge.recipe.parents import BASE, RESERVED, Parents, expert_names
from evomerge.recipe.recipe import Dtype, Folder, Parent, Recipe

__all__ = [
    "BASE", "COMPONENTS", "DENSITY_LEVELS", "FILE", "NO_SUM", "RESERVED", "Arrays", "Blend", "Carried",
    "Coefficients", "Component", "DareTies", "Dtype", "FineGrain", "Folder", "Grain", "Layer", "Linear", "Operator",
    "Own", "Parent", "Parents", "Recipe", "Slerp", "Source", "TaskArithmetic", "Ties", "Weighted", "count_of",
    "expert_names", "own_weights",
]  # fmt: skip
