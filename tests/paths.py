"""Recipes of any depth: layers of several parents, repeated, skipped and scaled."""

import random
from collections.abc import Sequence

from evomerge.checkpoint import ParentFiles
from evomerge.recipe import Blend, Layer, Linear, Recipe, Source
from evomerge.space.span import copy_of


def path(
    files: ParentFiles,
    steps: Sequence[tuple[str, int]],
    scales: Sequence[float] = (),
    outer: tuple[str, str] | None = None,
) -> Recipe:
    """Copies of parents' layers one after another; embeddings of the first of `outer`, the rest of the second."""
    first, last = outer or (files.parents.template, files.parents.template)
    layers = tuple(
        Layer(blend=copy_of(parent, layer), scale=scale)
        for (parent, layer), scale in zip(steps, scales or [1.0] * len(steps), strict=True)
    )
    groups = {name: copy_of(first if name == "embeddings" else last, None) for name in files.parents.outer}
    return files.parents.recipe(layers, groups)


def random_path(files: ParentFiles, depth: int, seed: int, *, scaled: bool = True) -> Recipe:
    """A path with a repeated and a skipped layer, blends on its way, and scales between 0.5 and 1.5."""
    rng = random.Random(seed)
    names = files.parents.names
    plain = path(files, [(rng.choice(names), rng.randrange(1, files.parents.layers)) for _ in range(depth - 1)])
    blended = Blend(
        operator=Linear(),
        sources=tuple(Source(parent=name, layer=rng.randrange(files.parents.layers), weight=0.5) for name in names[:2]),
    )
    layers = (Layer(blend=blended), *plain.layers)
    if scaled:
        layers = tuple(layer.model_copy(update={"scale": rng.uniform(0.5, 1.5)}) for layer in layers)
    return plain.model_copy(update={"layers": layers})
