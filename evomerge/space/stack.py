"""Ranges of layers one after another: frankenmerges, depth up-scaling."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from evomerge.errors import SpecError
from evomerge.limits import HOPS
from evomerge.recipe import Parents, Recipe
from evomerge.space.genes import Gene
from evomerge.space.hops import (
    Hop,
    HopsSpec,
    anchor_of,
    bounds_of,
    category,
    check_size,
    genes_of,
    genome_of,
    givers_of,
    hops_of,
    integer,
    recipe_of,
    same_hops,
    scale_axis,
    values_of,
)
from evomerge.values import Genome


class StackSpec(HopsSpec):
    """So many ranges of layers, each of one parent; the first begins with a first layer, the last ends with a last one.

    With two ranges of one parent it is depth up-scaling (Kim et al. 2024, SOLAR) or, where they do not overlap, the
    dropping of a block. The scale is that of a range's first hop.
    """

    kind: Literal["stack"] = "stack"
    ranges: int = Field(2, ge=2, le=HOPS)


class _Range(NamedTuple):
    parent: str
    first: int
    last: int
    scale: float = 1.0

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def hops(self) -> list[Hop]:
        """Its layers; the first one is scaled."""
        return [Hop(self.parent, i, self.scale if i == self.first else 1.0) for i in range(self.first, self.last + 1)]


class StackSpace:
    """A space of stacked ranges bound to its parents; see `SearchSpace`.

    Raises:
        SpecError: the parents cannot fill the space.
    """

    def __init__(self, spec: StackSpec, parents: Parents) -> None:
        self.spec = spec
        self.parents = parents
        self.anchor = anchor_of(spec, parents)
        self._givers = givers_of(spec, parents, self.anchor)
        self._deepest = max(parents.depth_of(name) for name in self._givers)
        check_size(spec.ranges * self._deepest, 0)  # Also with a bound of depth, which ranges are shortened to.
        self._bounds = bounds_of(spec, parents, self.anchor, spec.ranges * self._deepest)
        self._axes = {(index, what): axis for index in range(spec.ranges) for what, axis in self._axes_of(index)}
        self.genes = genes_of(self._axes)
        if self._bounds[1] < spec.ranges:
            raise SpecError(f"space.depth: {self._bounds[1]} hops are too few for {spec.ranges} ranges; allow more")
        shallowest = min(parents.depth_of(name) for name in self._givers)
        if self._bounds[0] > spec.ranges * shallowest:
            raise SpecError(
                f"space.depth: {spec.ranges} ranges of a model of {shallowest} layers make no {self._bounds[0]} hops;"
                " allow fewer, or leave that model out of space.parents"
            )

    def priors(self) -> tuple[Genome, ...]:
        """None: the fixed recipes are where such searches begin."""
        return ()

    def decode(self, genome: Genome) -> Recipe:
        """The recipe a genome names; total."""
        values = values_of(self._axes, genome)
        ranges = self._fitted([self._range(index, values) for index in range(self.spec.ranges)])
        return recipe_of(self.parents, self.anchor, [hop for each in ranges for hop in each.hops()])

    def encode(self, recipe: Recipe) -> Genome:
        """The genome that names `recipe`.

        Raises:
            SpecError: the recipe is not in the space.
        """
        hops = hops_of(recipe, self.anchor)
        values: dict[tuple[int, str], float] = {}
        for index, each in enumerate(self._split(_runs(hops))):
            if each.parent not in self._givers:
                raise SpecError(f"the recipe has layers of {each.parent}, the space has none")
            values[index, "parent"] = self._givers.index(each.parent)
            values |= {(index, "first"): each.first, (index, "last"): each.last, (index, "scale"): each.scale}
        genome = genome_of(self._axes, values)
        if not same_hops(hops_of(self.decode(genome), self.anchor), hops):
            raise SpecError("the recipe is no such stack: it begins or ends inside a model, or is of another depth")
        return genome

    def _axes_of(self, index: int) -> list[tuple[str, Gene | float]]:
        """What there is to say of a range; the first begins, and the last ends, where its parent does."""
        name, last = f"range {index + 1}", self.spec.ranges - 1
        axes: list[tuple[str, Gene | float]] = [("parent", category(f"{name}.parent", len(self._givers)))]
        ends = [*(["first"] if index > 0 else []), *(["last"] if index < last else [])]
        axes += [(end, integer(f"{name}.{end}", 0, self._deepest - 1)) for end in ends]
        if index > 0:
            axes.append(("scale", scale_axis(f"{name}.scale", self.spec)))
        return axes

    def _range(self, index: int, values: dict[tuple[int, str], float]) -> _Range:
        parent = self._givers[int(values[index, "parent"])]
        end = self.parents.depth_of(parent) - 1
        places = (values.get((index, "first"), 0), values.get((index, "last"), end))
        first, last = sorted(min(int(place), end) for place in places)
        return _Range(parent, first, last, values.get((index, "scale"), 1.0))

    def _fitted(self, ranges: list[_Range]) -> list[_Range]:
        """The ranges, shortened where they are longest or lengthened where they are shortest until they fit."""
        low, high = self._bounds
        while sum(each.length for each in ranges) > high:
            longest = max(range(len(ranges)), key=lambda index: ranges[index].length)
            ranges[longest] = self._moved(ranges, longest, -1)
        while sum(each.length for each in ranges) < low:
            free = [i for i in range(len(ranges)) if self._moved(ranges, i, 1).length > ranges[i].length]
            if not free:
                break
            shortest = min(free, key=lambda index: ranges[index].length)
            ranges[shortest] = self._moved(ranges, shortest, 1)
        return ranges

    def _moved(self, ranges: Sequence[_Range], index: int, by: int) -> _Range:
        """A range with a layer more or less, as far as its parent has one: at its end, of the last at its beginning."""
        each, end = ranges[index], self.parents.depth_of(ranges[index].parent) - 1
        if index == len(ranges) - 1 or (by > 0 and each.last == end and index > 0):
            return each._replace(first=max(0, each.first - by))
        return each._replace(last=min(end, each.last + by))

    def _split(self, runs: list[_Range]) -> list[_Range]:
        """As many ranges as the space has, the longest halved where there are fewer."""
        if len(runs) > self.spec.ranges:
            raise SpecError(f"the recipe has {len(runs)} ranges of layers, the space {self.spec.ranges}")
        while len(runs) < self.spec.ranges:
            longest = max(range(len(runs)), key=lambda index: runs[index].length)
            whole = runs[longest]
            middle = (whole.first + whole.last) // 2
            if middle == whole.last:
                raise SpecError(f"the recipe has fewer layers than the space has ranges, {self.spec.ranges}")
            halves = [whole._replace(last=middle), whole._replace(first=middle + 1, scale=1.0)]
            runs = [*runs[:longest], *halves, *runs[longest + 1 :]]
        return runs


def _runs(hops: Sequence[Hop]) -> list[_Range]:
    """Maximal ranges of consecutive layers of one parent; a scale begins another."""
    runs: list[_Range] = []
    for hop in hops:
        follows = runs and hop.scale == 1.0 and (runs[-1].parent, runs[-1].last + 1) == hop[:2]
        if follows:
            runs[-1] = runs[-1]._replace(last=hop.layer)
        else:
            runs.append(_Range(hop.parent, hop.layer, hop.layer, hop.scale))
    return runs
