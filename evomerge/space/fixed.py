"""Recipes that need no search: the parents themselves, and what people merge with by hand.

They are where every optimiser starts, as far as its space can express them, and what a search must beat.
"""

from itertools import combinations

from evomerge.limits import PAIRED
from evomerge.recipe import Blend, Layer, Linear, Operator, Parents, Recipe, Source, TaskArithmetic, Ties

SCALES = (0.7, 0.85, 1.0)
"""Common weights at which task vectors are added: the useful range for two or three experts of one base."""
UNIFORM = "uniform average"
REGMEAN = "regmean"
"""Experts rewritten by RegMean at equal weights: there, and nowhere else, they are RegMean."""
FEW = 4
"""Up to so many experts every pair is tried at every scale; above, at the largest only."""
DENSITIES = (0.2, 0.5)
"""TIES at the density of its paper, and at the one most recipes in circulation use."""


def fixed_recipes(parents: Parents) -> dict[str, Recipe]:
    """Fixed recipes by name: base, experts, RegMean if there is one, uniform average, task arithmetic, TIES.

    Only parents as deep as the base can be averaged or added up.
    """
    named: dict[str, Recipe] = {}
    for name in parents.names:
        named[name] = unchanged(parents, name)
    if parents.rewritten:
        operator = TaskArithmetic() if parents.base else Linear()
        named[REGMEAN] = _everywhere(parents, operator, _sources(parents.rewritten, 1.0 / len(parents.rewritten)))
    experts = tuple(name for name in parents.given if parents.depth_of(name) == parents.layers)
    if len(experts) > 1:
        named[UNIFORM] = _everywhere(parents, Linear(), _sources(experts, 1.0))
        if parents.base and parents.depth_of(parents.base) == parents.layers:
            named |= _task_arithmetic(parents, experts)
            named |= {
                f"ties {density}": _everywhere(parents, Ties(), _sources(experts, 1.0, density))
                for density in DENSITIES
            }
    return named


def unchanged(parents: Parents, name: str) -> Recipe:
    """The recipe that is one parent, as it is."""
    return _everywhere(parents, Linear(), (Source(parent=name),), parents.depth_of(name))


def _task_arithmetic(parents: Parents, every: tuple[str, ...]) -> dict[str, Recipe]:
    groups = {"task arithmetic": every}
    if 2 < len(every) <= PAIRED:
        groups |= {" + ".join(pair): pair for pair in combinations(every, 2)}
    named = {}
    for label, experts in groups.items():
        whole = label == "task arithmetic" or len(every) <= FEW
        for scale in SCALES if whole else SCALES[-1:]:
            named[f"{label} {scale}"] = _everywhere(parents, TaskArithmetic(), _sources(experts, scale))
    return named


def _sources(experts: tuple[str, ...], weight: float, density: float = 1.0) -> tuple[Source, ...]:
    return tuple(Source(parent=name, weight=weight, density=density) for name in experts)


def _everywhere(parents: Parents, operator: Operator, sources: tuple[Source, ...], depth: int | None = None) -> Recipe:
    """The same blend in every layer (of `depth`, or as many as the folders have) and every outer group."""

    def at(layer: int | None) -> Blend:
        base = Source(parent=parents.base, layer=layer) if operator.needs_base and parents.base else None
        here = tuple(source.model_copy(update={"layer": layer}) for source in sources)
        return Blend(operator=operator, base=base, sources=here)

    layers = tuple(Layer(blend=at(index)) for index in range(depth or parents.layers))
    return parents.recipe(layers, {name: at(None) for name in parents.outer})
