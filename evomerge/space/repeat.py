"""One block of a model's layers, run several times over."""

from collections.abc import Mapping
from itertools import product
from typing import Literal

from pydantic import Field, field_validator

from evomerge.errors import SpecError
from evomerge.limits import HOPS
from evomerge.recipe import Parents, Recipe
from evomerge.space.hops import (
    Hop,
    HopsSpec,
    anchor_of,
    bounds_of,
    genes_of,
    genome_of,
    hops_of,
    integer,
    recipe_of,
    same_hops,
    scale_axis,
    values_of,
    wholes_of,
)
from evomerge.values import Genome


class RepeatSpec(HopsSpec):
    """A block of the anchor's layers, run several times over; `length` is its longest, `times` how often at most."""

    kind: Literal["repeat"] = "repeat"
    length: int | None = Field(None, ge=1, le=HOPS)
    times: int = Field(3, ge=2, le=HOPS)

    @field_validator("parents")
    @classmethod
    def _anchor_alone(cls, parents: object) -> object:
        if parents not in (None, "anchor"):
            raise ValueError("is for other kinds of space; a repeated block is the anchor's, leave the key out")
        return parents


class RepeatSpace:
    """A space of repeated blocks bound to its parents; see `SearchSpace`.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: RepeatSpec, parents: Parents) -> None:
        self.spec = spec
        self.parents = parents
        self.anchor = anchor_of(spec, parents)
        self._depth = parents.depth_of(self.anchor)
        longest = min(spec.length or self._depth, self._depth)
        low, self._high = bounds_of(spec, parents, self.anchor, self._depth + (spec.times - 1) * longest)
        if not low <= self._depth <= self._high:
            raise SpecError(
                f"space.depth: {self.anchor} alone, of {self._depth} layers, is where a search for a repeated block"
                f" begins, and {low} to {self._high} hops leave it out"
            )
        self._axes = {
            "first": integer("block.first", 0, self._depth - 1),
            "length": integer("block.length", 1, longest),
            "times": integer("block.times", 1, spec.times),
            "scale": scale_axis("block.scale", spec),
        }
        self.genes = genes_of(self._axes)

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        return recipe_of(self.parents, self.anchor, self._hops(values_of(self._axes, genome)))

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        hops = hops_of(recipe, self.anchor)
        scale = next((hop.scale for hop in hops if hop.scale != 1.0), 1.0)
        wholes = (wholes_of(self._axes[key]) for key in ("times", "length", "first"))
        for times, length, first in product(*wholes):  # Times in front: the anchor itself is no repetition.
            values = {"first": first, "length": length, "times": times, "scale": scale}
            if self._count(values) == len(hops) and same_hops(self._hops(values), hops):
                return genome_of(self._axes, values)
        raise SpecError(f"the recipe is not {self.anchor} with one block repeated, as the space has it")

    def _block(self, values: Mapping[str, float]) -> tuple[int, int, int]:
        """The first layer of the block, the one behind it, and how often it is run again."""
        first, length = int(values["first"]), int(values["length"])
        end = min(first + length, self._depth)
        return first, end, min(int(values["times"]) - 1, (self._high - self._depth) // (end - first))

    def _count(self, values: Mapping[str, float]) -> int:
        first, end, again = self._block(values)
        return self._depth + again * (end - first)

    def _hops(self, values: Mapping[str, float]) -> list[Hop]:
        first, end, again = self._block(values)
        once = [Hop(self.anchor, layer) for layer in range(self._depth)]
        block = [once[first]._replace(scale=values["scale"]), *once[first + 1 : end]]
        return [*once[:end], *block * again, *once[end:]]
