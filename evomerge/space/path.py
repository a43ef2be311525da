"""The data-flow space: which layers of all parents run, in which order, how often, with which input scales."""

import contextlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from evomerge.errors import SpecError
from evomerge.limits import HOPS
from evomerge.recipe import Parents, Recipe
from evomerge.space.genes import TOLERANCE, Gene
from evomerge.space.hops import (
    Hop,
    HopsSpec,
    anchor_of,
    bounds_of,
    check_size,
    genes_of,
    genome_of,
    givers_of,
    halves,
    hops_of,
    recipe_of,
    same_hops,
    scale_axis,
    values_of,
)
from evomerge.space.spec import ends
from evomerge.values import Genome

MOST_PRIORS = 12
"""Stacks that a search begins with; of more, every second or third."""
ON = 0.5
"""A slot runs whose gene is above."""


class PathSpec(HopsSpec):
    """Layers of all parents in sequence, the list repeated, each slot in or out (Akiba et al. 2024, section 3.2).

    `repeats` is how often the list of all layers is laid out. `ends` says whether the anchor's first and last layer
    begin and end every path, as in the paper, or any may. `scaling` says whether every slot has a scale of its own or
    every pair of layers that may follow each other, which is the paper's matrix.
    """

    kind: Literal["path"] = "path"
    repeats: int = Field(2, ge=1, le=HOPS)
    ends: Literal["anchor", "free"] = "anchor"
    scaling: Literal["slot", "pair"] = "slot"


class PathSpace:
    """A data-flow space bound to its parents; see `SearchSpace`.

    Those slots run whose gene is above one half; where there are too many or too few, those with the highest genes.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: PathSpec, parents: Parents) -> None:
        self.spec = spec
        self.parents = parents
        self.anchor = anchor_of(spec, parents)
        self._givers = givers_of(spec, parents, self.anchor)
        once = [Hop(name, layer) for name in self._givers for layer in range(parents.depth_of(name))]
        check_size(0, self._count(len(once)))
        first, last = Hop(self.anchor, 0), Hop(self.anchor, parents.depth_of(self.anchor) - 1)
        self._front, self._back = ([first], [last]) if spec.ends == "anchor" else ([], [])
        slots = [(turn, hop) for turn in range(spec.repeats) for hop in once]
        # What is forced at an end anyway would be there twice.
        begin, end = self._front == [slots[0][1]], len(slots) - (self._back == [slots[-1][1]])
        self._slots = slots[begin:end]
        self._bounds = bounds_of(spec, parents, self.anchor, len(self._path(range(len(self._slots)))))
        self._names = [f"{hop.name}{f' #{turn + 1}' if turn else ''}" for turn, hop in self._slots]
        self._scales = {key: scale_axis(key, spec) for key in self._scale_keys()} if self._scaled else {}
        included = (Gene(name=f"{name}.in", low=0, high=1, levels=1, kind="binary") for name in self._names)
        self.genes = (*included, *genes_of(self._scales))

    @property
    def _scaled(self) -> bool:
        low, high = ends(1.0 if self.spec.scale is None else self.spec.scale)
        return low < high

    def _count(self, layers: int) -> int:
        """How many genes there are for the row of all layers, but for a few at its ends."""
        slots = layers * self.spec.repeats
        scales = layers * layers if self.spec.scaling == "pair" else slots
        return slots + (scales if self._scaled else 0)

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        count = len(self._slots)
        chosen = self._chosen(genome[:count])
        scales = values_of(self._scales, genome[count:])
        keys = self._keys(chosen)
        hops = [hop._replace(scale=scales.get(key, 1.0)) for hop, key in zip(self._path(chosen), keys, strict=True)]
        return recipe_of(self.parents, self.anchor, hops)

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        hops = hops_of(recipe, self.anchor)
        low, high = self._bounds
        if not low <= len(hops) <= high:
            raise SpecError(f"the recipe has {len(hops)} layers; the space allows {low} to {high}")
        chosen = self._places(hops)
        scales: dict[str, float] = {}
        for key, hop in zip(self._keys(chosen), hops, strict=True):
            if abs(scales.setdefault(key, hop.scale) - hop.scale) > TOLERANCE:
                raise SpecError(f"{key} is {scales[key]:g} and {hop.scale:g}, where the space has one number")
        included = (float(place in chosen) for place in range(len(self._slots)))
        genome = (*included, *genome_of(self._scales, dict.fromkeys(self._scales, 1.0) | scales))
        if not same_hops(hops_of(self.decode(genome), self.anchor), hops):
            raise SpecError("the recipe has scales where the space has none")
        return genome

    def priors(self) -> tuple[Genome, ...]:
        """Stacks of two parents, as people make them by hand: between them and the anchor's own path lies the rest."""
        found = []
        for hops in halves(self.parents, self._givers):
            begin = [] if hops[:1] == self._front else self._front
            end = [] if hops[-1:] == self._back else self._back
            with contextlib.suppress(SpecError):
                found.append(self.encode(recipe_of(self.parents, self.anchor, [*begin, *hops, *end])))
        every = list(dict.fromkeys(found))
        return tuple(every[place] for place in range(0, len(every), -(-len(every) // MOST_PRIORS) or 1))

    def _chosen(self, units: Genome) -> list[int]:
        """Places of the slots that run: those that are on, as far as the bounds of depth let them."""
        low, high = (bound - len(self._front) - len(self._back) for bound in self._bounds)
        ranked = sorted(range(len(units)), key=lambda place: (-units[place], place))
        on = sum(unit > ON for unit in units)
        return sorted(ranked[: min(max(on, low), high)])

    def _path(self, chosen: Sequence[int]) -> list[Hop]:
        return [*self._front, *(self._slots[place][1] for place in chosen), *self._back]

    def _places(self, hops: Sequence[Hop]) -> list[int]:
        """The slots that these hops take, each the first one possible."""
        path = [hop._replace(scale=1.0) for hop in hops]
        begin, end = len(self._front), len(path) - len(self._back)
        if path[:begin] != self._front or path[end:] != self._back:
            raise SpecError(f"the recipe does not begin and end with the first and the last layer of {self.anchor}")
        chosen: list[int] = []
        for hop in path[begin:end]:
            later = range(chosen[-1] + 1 if chosen else 0, len(self._slots))
            place = next((place for place in later if self._slots[place][1] == hop), None)
            if place is None:
                raise SpecError(f"the recipe has {hop.name} where the space's list of layers has none left")
            chosen.append(place)
        return chosen

    def _scale_keys(self) -> list[str]:
        """Names of all scales there are."""
        if self.spec.scaling == "slot":
            return self._slot_keys(self._names)
        path = self._path(range(len(self._slots)))
        known = dict.fromkeys(path)
        # What never comes after a layer needs no number behind it.
        before = {other: set(path[: len(path) - 1 - path[::-1].index(other)]) for other in known}
        return [_joint(one, other) for one in known for other in known if one in before[other]]

    def _keys(self, chosen: Sequence[int]) -> list[str]:
        """The scale of each hop by name."""
        if self.spec.scaling == "slot":
            return self._slot_keys([self._names[place] for place in chosen])
        return ["", *(_joint(one, other) for one, other in pairwise(self._path(chosen)))]

    def _slot_keys(self, names: Sequence[str]) -> list[str]:
        forced = [["first"] if self._front else [], ["last"] if self._back else []]
        return [f"{name}.scale" for name in (*forced[0], *names, *forced[1])]


def _joint(one: Hop, other: Hop) -> str:
    return f"{one.name} > {other.name}.scale"
