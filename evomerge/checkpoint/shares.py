"""How every tensor of a recipe's model is blended: as its layer or group is, or with weights of its own."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.checkpoint.anatomy import Anatomy, Place
from evomerge.errors import SpecError
from evomerge.limits import MOST_WEIGHT
from evomerge.recipe import NO_SUM, Blend, Coefficients, FineGrain, Recipe, count_of


@dataclass(frozen=True, eq=False)
class Fine:
    """Weights of one tensor that differ within it: float32 (sources, columns), or (sources, rows).

    A column is a place on the last axis, of which there are `columns`; a row is a place on all others together.
    """

    grain: FineGrain
    values: NDArray[np.float32]
    columns: int

    @cached_property
    def text(self) -> str:
        """What they are, short."""
        return f"{self.grain} {hashlib.blake2b(self.values.tobytes(), digest_size=16).hexdigest()}"


@dataclass(frozen=True, eq=False)
class Mix:
    """How one tensor is made: a blend, and weights instead of the blend's, if they differ within the tensor."""

    blend: Blend
    fine: Fine | None = None

    @cached_property
    def text(self) -> str:
        """What it is: the blend as JSON, and which weights."""
        return self.blend.model_dump_json() + (f" {self.fine.text}" if self.fine is not None else "")


class Shares:
    """The mixes of a recipe's tensors; `coefficients` are what its side file holds, which is else read.

    Raises:
        SpecError: the recipe has weights for tensors that are not there, or as they cannot be; the side file cannot be
            read, or is not the recipe's.
    """

    def __init__(self, recipe: Recipe, anatomy: Anatomy, coefficients: Coefficients | None = None) -> None:
        self._recipe = recipe
        self._anatomy = anatomy
        self._own: dict[int | None, dict[str, Mix]] = {}
        if recipe.tensors or recipe.arrays is not None or coefficients is not None:
            self._refine(coefficients)

    def own(self, layer: int | None) -> Mapping[str, Mix]:
        """Mixes of the tensors with weights of their own, in a layer or outside, by name there, in order."""
        return self._own.get(layer, {})

    def mix(self, place: Place) -> Mix:
        """How the tensor at a place of the merged model is made."""
        return self.own(place.layer).get(place.name) or Mix(self._blend(place))

    def coefficients(self, grain: FineGrain | None) -> Coefficients:
        """The weights of all tensors that have sources, in this grain, or one a source; finer ones are averaged."""
        found = {}
        for name, place in self.places():
            mix = self.mix(place)
            weights = np.array([mix.blend.coefficients()], np.float32).T if mix.fine is None else mix.fine.values
            count = 1 if mix.blend.operator.pair else count_of(grain or "tensor", self.shape(place))
            if mix.fine is not None and (mix.fine.grain, weights.shape[1]) != (grain, count):
                weights = weights.mean(axis=1, keepdims=True)
            if mix.blend.sources:
                found[name] = np.ascontiguousarray(np.broadcast_to(weights, (len(weights), count)))
        return Coefficients(grain or "tensor", found)

    def places(self) -> Iterator[tuple[str, Place]]:
        """Names in the merged model of its tensors, and their places."""
        places = (place for _, place in self._anatomy.of_depth(self._recipe.origins()))
        return ((self._anatomy.at(place), place) for place in places)

    def _blend(self, place: Place) -> Blend:
        component: Any = place.part
        recipe = self._recipe
        return recipe.outer[place.part] if place.layer is None else recipe.layers[place.layer].part(component)

    def shape(self, place: Place) -> tuple[int, ...]:
        """The shape of the tensor at a place of the merged model."""
        origin = place if place.layer is None else place.in_layer(self._recipe.origins()[place.layer])
        return self._anatomy.shapes[self._anatomy.at(origin)]

    def _refine(self, coefficients: Coefficients | None) -> None:
        places = dict(self.places())
        arrays, mixes = self._recipe.arrays, {}
        for name, weights in self._recipe.tensors.items():
            where = f"tensors.{name}"
            blend = self._blend(_known(name, places, where))
            _check_number(len(weights), blend, where)
            mixes[name] = Mix(blend.with_coefficients(weights))
            _check_sum(weights, blend, where)
        if arrays is not None or coefficients is not None:
            mixes |= self._fine(coefficients, places)
        for name in sorted(mixes):
            place = places[name]
            self._own.setdefault(place.layer, {})[place.name] = mixes[name]

    def _fine(self, coefficients: Coefficients | None, places: Mapping[str, Place]) -> dict[str, Mix]:
        """What the side file says."""
        arrays = self._recipe.arrays
        if arrays is None:
            raise SpecError("arrays is missing from the recipe, for which there are coefficients; write it")
        found = Coefficients.read(arrays) if coefficients is None else coefficients
        if coefficients is not None and coefficients.digest() != arrays.digest:
            raise SpecError(f"{arrays.path} has another digest than the coefficients that came with the recipe")
        if found.grain != arrays.grain:
            raise SpecError(f"{arrays.path} has coefficients by {found.grain}, the recipe says {arrays.grain}")
        mixes = {}
        for name, values in found.arrays.items():
            where = f"{arrays.path}: {name}"
            place = _known(name, places, where)
            if name in self._recipe.tensors:
                raise SpecError(f"{where} is in tensors of the recipe too; leave it out of one of both")
            mixes[name] = _fine_mix(arrays.grain, values, self._blend(place), self.shape(place), where)
        return mixes


def _fine_mix(grain: FineGrain, values: NDArray[np.float32], blend: Blend, shape: tuple[int, ...], where: str) -> Mix:
    _check_number(len(values), blend, where)
    wanted = 1 if blend.operator.pair else count_of(grain, shape)
    if values.shape[1] != wanted:
        what = f"{grain}s of the tensor" if wanted > 1 else "a number a source"
        raise SpecError(f"{where} has {values.shape[1]} numbers a source; give {wanted}, {what}")
    if values.size and float(np.abs(values).max()) > MOST_WEIGHT:
        raise SpecError(f"{where} has a weight of {np.abs(values).max():g}; give {MOST_WEIGHT:g} or less")
    if not values.size:
        return Mix(blend)
    if wanted == 1:
        return Mix(blend.with_coefficients(tuple(map(float, values[:, 0]))))
    return Mix(blend, Fine(grain, np.ascontiguousarray(values), shape[-1]))


def _known(name: str, places: Mapping[str, Place], where: str) -> Place:
    if name not in places:
        raise SpecError(f"{where} is no tensor of the merged model; its names are such as {next(iter(places))}")
    return places[name]


def _check_number(given: int, blend: Blend, where: str) -> None:
    wanted = 1 if blend.operator.pair else len(blend.sources)
    if given != wanted:
        what = "slerp's t" if blend.operator.pair else "one for each source of its blend"
        raise SpecError(f"{where} has numbers for {given} sources; give {wanted}, {what}")


def _check_sum(weights: tuple[float, ...], blend: Blend, where: str) -> None:
    divided = blend.operator.normalize and not blend.operator.needs_base
    if divided and abs(math.fsum(weights)) < NO_SUM:
        raise SpecError(f"{where} sums to 0, and normalize divides by that; give others, or normalize: false")
