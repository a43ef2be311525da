"""Paths through layers in the words of mergekit's passthrough, which copies layers and scales tensors by name."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from evomerge.checkpoint import Anatomy, ParentFiles
from evomerge.errors import SpecError
from evomerge.materialize import Last, lasts_of, unchanged_source
from evomerge.recipe import COMPONENTS, Layer, Recipe, Source


def copied(layer: Layer) -> Source | None:
    """The one layer of a parent that a layer copies, if that is what it does."""
    sources = [unchanged_source(layer.part(component)) for component in COMPONENTS]
    first = sources[0]
    same = all(source and first and (source.parent, source.layer) == (first.parent, first.layer) for source in sources)
    return first if same else None


def passthrough_slices(recipe: Recipe, files: ParentFiles) -> list[dict[str, Any]]:
    """Slices (source by name, layer range, scales) of a recipe whose layers are copies; scales are folded as gains.

    Raises:
        SpecError: a layer is a blend, embeddings, norm or head are not those that mergekit takes, or a scale cannot be
            told by names of tensors.
    """
    steps = _steps(recipe)
    _check_outer(recipe, steps)
    gains = recipe.gains()
    lasts = lasts_of(files) if any(gain != 1.0 for gain in gains) else ()
    cuts = [place for place in range(len(steps)) if not place or not _goes_on(steps, gains, place)]
    slices = []
    for first, end in pairwise([*cuts, len(steps)]):
        start = steps[first].layer or 0
        source: dict[str, Any] = {"model": steps[first].parent, "layer_range": [start, start + end - first]}
        if gains[first] != 1.0:
            run = range(start, start + end - first)
            filters = dict.fromkeys(text for layer in run for text in _filters(lasts[layer], files.anatomy, layer))
            scale = [*({"filter": text, "value": gains[first]} for text in filters), {"value": 1.0}]
            source["parameters"] = {"scale": scale}
        slices.append({"sources": [source]})
    return slices


def scales_of(gains: Sequence[float]) -> list[float]:
    """What each layer's input is multiplied by, such that `Recipe.gains` gives these."""
    return [before / gain for before, gain in pairwise([1.0, *gains])]


def gain_of(scales: Mapping[str, float], lasts: Mapping[str, Last], what: str) -> float:
    """The gain of a layer whose tensors, by name in the layer, are multiplied by `scales`.

    Raises:
        SpecError: they are not what a gain makes: the same above zero for all that the layer's contribution is
            proportional to, and one for the others.
    """
    found = {scales[name] for name in lasts if name in scales}
    others = {scale for name, scale in scales.items() if name not in lasts}
    plain = all(not last.one_plus for last in lasts.values())
    if found | others == {1.0}:
        return 1.0
    if len(found) != 1 or others - {1.0} or min(found) <= 0 or not plain:
        names = ", ".join(sorted({last.owner for last in lasts.values()}))
        raise SpecError(
            f"{what}: scale is read where it multiplies what the layer adds: one value above zero for {names}, and 1"
            " for all else"
        )
    return found.pop()


def _steps(recipe: Recipe) -> list[Source]:
    steps = []
    for place, layer in enumerate(recipe.layers):
        source = copied(layer)
        if source is None:
            raise SpecError(
                f"layer {place} of the recipe is a blend, and the recipe has scales; mergekit scales in passthrough"
                " only, which copies layers"
            )
        steps.append(source)
    return steps


def _check_outer(recipe: Recipe, steps: Sequence[Source]) -> None:
    for group, blend in recipe.outer.items():
        wanted, which = (steps[0].parent, "first") if group == "embeddings" else (steps[-1].parent, "last")
        source = unchanged_source(blend)
        if source is None or source.parent != wanted:
            mine = "a blend" if source is None else f"{source.parent}'s"
            raise SpecError(
                f"outer.{group} is {mine}, and mergekit's passthrough takes it from the model of the {which} layer,"
                f" {wanted}"
            )


def _goes_on(steps: Sequence[Source], gains: Sequence[float], place: int) -> bool:
    """Whether a layer follows the one before it in the same model, with the same gain."""
    before, here = steps[place - 1], steps[place]
    follows = (before.parent, (before.layer or 0) + 1) == (here.parent, here.layer or 0)
    return follows and gains[place - 1] == gains[place]


def _filters(lasts: Mapping[str, Last], anatomy: Anatomy, layer: int) -> list[str]:
    """Parts of names that fit the tensors with a gain, and no others in the model."""
    if any(last.one_plus for last in lasts.values()):
        raise SpecError(
            "the recipe has scales, and this class's norms multiply by one plus their weight, which mergekit cannot"
            " scale; export the model itself"
        )
    wanted = {anatomy.at(place) for place in anatomy.inside[layer].values() if place.name in lasts}
    here = [*anatomy.outside, *anatomy.inside[layer]]
    found: dict[str, None] = {}
    for last in lasts.values():
        short, whole = last.owner.rpartition(".")[2], f".{last.name}"
        fits = all(name in wanted for name in here if short in name)
        found[short if fits else whole] = None
    return list(found)
