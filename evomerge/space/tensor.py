"""The coefficient space in which every tensor has genes of its own."""

from collections.abc import Mapping

from evomerge.errors import SpecError
from evomerge.recipe import COMPONENTS, NO_SUM, Blend, Parents, Recipe
from evomerge.space.blend import BlendSpace
from evomerge.space.genes import TOLERANCE, Gene
from evomerge.space.spec import BlendSpec, ends
from evomerge.values import Genome


class TensorSpace:
    """A coefficient space by tensor, bound to its parents; see `SearchSpace`.

    Its recipes have the weights of each tensor in `tensors`, and blends in which all experts are.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: BlendSpec, parents: Parents) -> None:
        low, high = spec.weights
        if low == high:
            raise SpecError("space.weight: groups: tensor searches weights, and here they are fixed; give a range")
        self._blends = BlendSpace(_frame(spec), parents)
        self._whole = self._blends.decode(())
        self._names = [name for name, place in parents.tensors.items() if spec.outer == "own" or "." in place]
        if not self._names:
            raise SpecError("space.groups: the names of the models' tensors are not known; write layer")
        self.spec = spec
        self.parents = parents
        voices = ("",) if spec.operator.pair else parents.experts
        self._voices = len(voices)
        stems = [f"{voice}.{name}.weight" if voice else f"{name}.t" for name in self._names for voice in voices]
        self.genes = tuple(Gene(name=stem, low=low, high=high) for stem in stems)

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total, every genome of the right length is some recipe."""
        values = iter([gene.value(unit) for gene, unit in zip(self.genes, genome, strict=True)])
        tensors = {name: self._divisible(tuple(next(values) for _ in range(self._voices))) for name in self._names}
        return self._whole.model_copy(update={"tensors": tensors})

    def frame(self, genome: Genome) -> Recipe:
        """The same, in which every expert is in every blend."""
        return self.decode(genome)

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        self._check(recipe)
        values = [value for name in self._names for value in self._weights_in(recipe, name)]
        return tuple(gene.unit(value) for gene, value in zip(self.genes, values, strict=True))

    def _divisible(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        """Weights that have a sum to be divided by, where they are: nothing of everything has no meaning."""
        operator = self.spec.operator
        divided = operator.normalize and not operator.needs_base
        return (1.0,) * len(weights) if divided and abs(sum(weights)) < NO_SUM else weights

    def _check(self, recipe: Recipe) -> None:
        if recipe.arrays is not None:
            raise SpecError("the recipe has weights within tensors, the space has one a tensor")
        odd = sorted(recipe.tensors.keys() - self.parents.tensors.keys())
        if odd:
            raise SpecError(f"tensors.{odd[0]} is no tensor of these models")
        if len(recipe.layers) != self.parents.layers:
            raise SpecError(f"the recipe has {len(recipe.layers)} layers, the parents have {self.parents.layers}")
        if any(layer.scale != 1.0 for layer in recipe.layers):
            raise SpecError("the recipe scales layers' inputs, the space does not")
        others = self.parents.tensors.keys() - {*self._names}
        if others and (recipe.outer != self._whole.outer or others & recipe.tensors.keys()):
            raise SpecError(f"embeddings, norm and head are not all those of {self.spec.outer}")

    def _weights_in(self, recipe: Recipe, name: str) -> list[float]:
        """What a recipe does to a tensor: one number an expert, or t."""
        layer, blend = _blend_at(recipe, self.parents.tensors, name)
        own = recipe.tensors.get(name)
        if own is not None:
            if len(own) != len(blend.coefficients()):
                raise SpecError(f"tensors.{name} has {len(own)} numbers; give {len(blend.coefficients())}")
            blend = blend.with_coefficients(own)
        shares = self._blends.shares(blend, layer)
        density = ends(self.spec.density)[0]
        odd = next((each for weight, each in shares if weight and abs(each - density) > TOLERANCE), None)
        if odd is not None:
            raise SpecError(f"{name} has a density of {odd:g} where the space fixes {density:g}")
        return [weight for weight, _ in shares]


def names_for(spec: object, parents: Parents) -> Parents:
    """The parents as a space needs them: with names of tensors only where these have genes."""
    by_tensor = isinstance(spec, BlendSpec) and spec.groups == "tensor"
    return parents if by_tensor else parents.model_copy(update={"tensors": {}})


def _frame(spec: BlendSpec) -> BlendSpec:
    """The same with one fixed weight for all, that of blends whose tensors have weights of their own."""
    return spec.model_copy(update={"groups": "model", "weight": 0.5 if spec.operator.pair else 1.0})


def _blend_at(recipe: Recipe, tensors: Mapping[str, str], name: str) -> tuple[int | None, Blend]:
    """The layer of a tensor, and how a recipe blends it where it has no weights of its own."""
    group, _, part = tensors[name].partition(".")
    component = next((each for each in COMPONENTS if each == part), None)
    if component is None:
        return None, recipe.outer[group]
    return int(group), recipe.layers[int(group)].part(component)
