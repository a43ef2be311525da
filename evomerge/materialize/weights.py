"""The weights of the model that a recipe makes, as a checkpoint holds them: merged, then gains folded in."""

from collections.abc import Iterator

import torch
from torch import Tensor

from evomerge.checkpoint import ParentFiles, Place, Shares, blank_model, read_config
from evomerge.materialize.fold import Last, last_of
from evomerge.materialize.merger import Job, Merger, single_source
from evomerge.recipe import Recipe, Source


class Weights:
    """One recipe's tensors by their places in its model, each made when it is asked for.

    Which layers can have a gain was checked by `check_scales`.

    Raises:
        SpecError: see `Shares`.
    """

    def __init__(self, recipe: Recipe, files: ParentFiles, merger: Merger) -> None:
        self._recipe = recipe
        self._anatomy = files.anatomy
        self._merger = merger
        self._shares = Shares(recipe, files.anatomy)
        self._origins = recipe.origins()
        self._gains = recipe.gains()
        self._lasts = lasts_of(files) if self.folded else ()

    @property
    def folded(self) -> bool:
        """Whether any tensor has a gain in it."""
        return any(gain != 1.0 for gain in self._gains)

    def places(self) -> Iterator[Place]:
        """Places of all tensors."""
        return (place for _, place in self._anatomy.of_depth(self._origins))

    def shape(self, place: Place) -> tuple[int, ...]:
        """Shape of the tensor at a place."""
        return self._anatomy.shapes[self.source(place)]

    def source(self, place: Place) -> str:
        """What the tensor at a place is called, in memory, in the layer of a model folder that it comes from."""
        return self._anatomy.at(place if place.layer is None else place.in_layer(self._origins[place.layer]))

    def tensor(self, place: Place) -> Tensor:
        """The tensor at a place, of the recipe's dtype, or of fp32 where the class keeps it so.

        One with a gain in it is made in fp32, and rounded once.
        """
        source = self.source(place)
        dtype: torch.dtype = getattr(torch, self._anatomy.dtype(source, self._recipe.dtype))
        last = None if place.layer is None else self._last(place.layer, place.name)
        exact = dtype if last is None else torch.float32
        merged = torch.empty(self.shape(place), dtype=exact, device=self._merger.device)
        mix = self._shares.mix(place)
        self._merger.write(Job(mix.blend, source, merged.view(-1), exact, self._recipe.seed, mix.fine))
        if last is None or place.layer is None:
            return merged
        return last.scaled(merged, self._gains[place.layer]).to(dtype)

    def copied(self, place: Place) -> Source | None:
        """The source that the tensor at a place is a copy of, if it has no gain."""
        plain = place.layer is None or self._gains[place.layer] == 1.0
        return single_source(self._shares.mix(place)) if plain else None

    def _last(self, layer: int, name: str) -> Last | None:
        """The tensor if the layer's contribution is proportional to it, and has a gain."""
        return None if self._gains[layer] == 1.0 else self._lasts[self._origins[layer]].get(name)


def lasts_of(files: ParentFiles) -> tuple[dict[str, Last], ...]:
    """For each layer of a model folder the tensors that its contribution is proportional to, by name in the layer."""
    model = blank_model(read_config(files.template), trusted=files.template.trusted)
    layers = model.get_submodule(files.anatomy.stack).children()
    return tuple({last.name: last for last in last_of(layer)} for layer in layers)
