"""A recipe as a table for people: weights by place, or for a path which layers follow one another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.export.markdown import table_row
from evomerge.export.passthrough import copied
from evomerge.recipe import Blend, Own, Recipe, Source, own_weights


class _Place(NamedTuple):
    label: str
    blend: Blend
    layer: int | None = None


def recipe_table(recipe: Recipe) -> str:
    """Weights by place, parents across (a density below one in brackets); for a path of copies, runs of layers.

    Of tensors with weights of their own: the mean over each layer, and from where to where they go.
    """
    own = own_weights(recipe)
    if own:
        return _own(own)
    single = [copied(layer) for layer in recipe.layers]
    moved = any(source is None or source.layer != place for place, source in enumerate(single))
    steps = [source for source in single if source is not None]
    if len(steps) == len(single) and (moved or _scaled(recipe)):
        return f"{_path(recipe, steps)}\n\n{_blends(recipe, _outer(recipe))}"
    before = [place for place in _outer(recipe) if place.label == "embeddings"]
    behind = [place for place in _outer(recipe) if place.label != "embeddings"]
    return _blends(recipe, [*before, *_inner(recipe), *behind])


def _own(own: Sequence[Own]) -> str:
    voices = list(dict.fromkeys(each.voice for each in own))
    lines = [table_row(["", *voices]), "|---" * (len(voices) + 1) + "|"]
    parts: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    for each in own:
        label = each.kind if each.layer is None else f"layer {each.layer}"
        parts.setdefault(label, {}).setdefault(each.voice, []).append(each.weights)
    for label, spans in parts.items():
        lines.append(table_row([label, *(_span(spans.get(voice, [])) for voice in voices)]))
    return "\n".join(lines)


def _span(weights: Sequence[NDArray[np.float32]]) -> str:
    """Mean of some weights, and from where to where they go."""
    if not weights:
        return ""
    whole = np.concatenate(weights)
    mean, low, high = (float(value) for value in (whole.mean(), whole.min(), whole.max()))
    return f"{mean:.4g}" if low == high else f"{mean:.3g} ({low:.3g} to {high:.3g})"


def _outer(recipe: Recipe) -> list[_Place]:
    return [_Place(name, blend) for name, blend in recipe.outer.items()]


def _inner(recipe: Recipe) -> list[_Place]:
    places = []
    for index, layer in enumerate(recipe.layers):
        scale = f", scale {layer.scale:.4g}" if layer.scale != 1.0 else ""
        places.append(_Place(f"layer {index}{scale}", layer.blend, index))
        overrides = {"attention": layer.attention, "mlp": layer.mlp, "norm": layer.norm}
        places += [_Place(f"layer {index}, {name}", blend, index) for name, blend in overrides.items() if blend]
    return places


def _scaled(recipe: Recipe) -> bool:
    return any(layer.scale != 1.0 for layer in recipe.layers)


def _path(recipe: Recipe, steps: Sequence[Source]) -> str:
    """A line for every run of consecutive layers of one parent."""
    runs: list[list[int]] = []
    for place, source in enumerate(steps):
        before = steps[place - 1]
        goes_on = place > 0 and (before.parent, (before.layer or 0) + 1) == (source.parent, source.layer)
        if goes_on:
            runs[-1].append(place)
        else:
            runs.append([place])
    scaled = _scaled(recipe)
    lines = ["| layers | from | its layers |" + (" scale |" if scaled else ""), "|---|---|---|" + "---|" * scaled]
    for run in runs:
        first, last = steps[run[0]], steps[run[-1]]
        scales = ", ".join(f"{recipe.layers[place].scale:.3g}" for place in run)
        cells = [_range(run[0], run[-1]), first.parent, _range(first.layer or 0, last.layer or 0)]
        lines.append(table_row([*cells, *([scales] if scaled else [])]))
    return "\n".join(lines)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _blends(recipe: Recipe, places: Sequence[_Place]) -> str:
    names = [name for name in recipe.parents if any(s.parent == name for place in places for s in place.blend.sources)]
    lines = [table_row(["", *names]), "|---" * (len(names) + 1) + "|"]
    for place in places:
        lines.append(table_row([place.label, *(_shares(place, name) for name in names)]))
    return "\n".join(lines)


def _shares(place: _Place, parent: str) -> str:
    shares = zip(place.blend.sources, place.blend.weights(), strict=True)
    return " + ".join(_share(place, source, weight) for source, weight in shares if source.parent == parent)


def _share(place: _Place, source: Source, weight: float) -> str:
    moved = f" of layer {source.layer}" if source.layer != place.layer else ""
    dense = place.blend.operator.takes_density and source.density < 1
    return f"{weight:.4g}" + (f" ({source.density:.3g})" if dense else "") + moved
