"""A recipe as a model folder that any stock loader reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from evomerge.checkpoint import (
    ParentFiles,
    as_tied,
    blank_model,
    moved_config,
    quiet,
    read_config,
    renumbered,
    write_config,
    write_model,
)
from evomerge.errors import SpecError
from evomerge.files import passing_folder
from evomerge.materialize import (
    MAPPED,
    GainError,
    HeldParents,
    Merger,
    Weights,
    check_gains,
    check_scales,
    signature,
)
from evomerge.recipe import Recipe


def write_weights(folder: Path, recipe: Recipe, files: ParentFiles) -> None:
    """Merge tensor by tensor into safetensors files, on the CPU: the same bytes on every machine.

    Only what adapters add are matrix products, whose last bits are the machine's.

    The model is as deep as the recipe, and scales are folded into its weights.

    Raises:
        SpecError: this class of models cannot have scales, or cannot have its layers in another order.
        RunError: a weight is not finite.
    """
    weights = weights_of(recipe, files)
    config = _checked_config(folder, recipe, files)
    account = files.accounts[files.lender]
    places = {}
    for place in weights.places():
        name = account.written(weights.source(place))
        places[name if place.layer is None else renumbered(name, place.layer)] = place
    shapes = {name: weights.shape(place) for name, place in places.items()}
    write_model(folder, files.template, config, shapes, lambda name: weights.tensor(places[name]))


def weights_of(recipe: Recipe, files: ParentFiles) -> Weights:
    """A recipe's tensors, each made on the CPU when it is asked for."""
    cpu = torch.device("cpu")
    held = HeldParents(files, MAPPED, cpu)
    return Weights(recipe, files, Merger(held.read, held.mask_key, cpu, product=held.product))


def check_foldable(recipe: Recipe, files: ParentFiles) -> None:
    """See that a recipe's scales can be folded into weights.

    Raises:
        SpecError: they are beyond what weights bear, or this class of models cannot have any.
    """
    try:
        check_gains(recipe)
    except GainError as error:
        raise SpecError(f"{error}; choose another candidate, or narrow the range of scales") from None
    if any(gain != 1.0 for gain in recipe.gains()):
        check_scales(files.template, files.anatomy)


def check_exportable(recipe: Recipe, files: ParentFiles) -> None:
    """See, before anything is spent on it, that a recipe can be an ordinary folder.

    Raises:
        SpecError: this class of models cannot have scales, or cannot have its layers in another order.
    """
    with passing_folder() as folder:
        _checked_config(folder, recipe, files)


def _checked_config(folder: Path, recipe: Recipe, files: ParentFiles) -> dict[str, Any]:
    """Write the config, and see that it gives a model that does what was scored."""
    check_foldable(recipe, files)
    config = write_config(folder, _config(recipe, files), recipe.dtype)
    if recipe.origins() != tuple(range(files.anatomy.layers)):
        _check_moved(folder, files, recipe.origins())
    return config


def _config(recipe: Recipe, files: ParentFiles) -> dict[str, object]:
    plain = moved_config(files.template.config, read_config(files.template), recipe.origins())
    return as_tied(plain, read_config(files.template), files.config)


def _check_moved(folder: Path, files: ParentFiles, origins: Sequence[int]) -> None:
    """See that the config just written gives layers that behave as those they come from.

    Raises:
        SpecError: it does not: the class decides something by a layer's number, or by the depth.
    """
    trusted = files.template.trusted
    template = blank_model(read_config(files.template), trusted=trusted)
    name = type(template).__name__
    advice = f"{name} cannot have its layers in another order or number"
    try:
        with quiet():
            moved = blank_model(AutoConfig.from_pretrained(folder, trust_remote_code=trusted), trusted=trusted)
    except (ValueError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise SpecError(f"{advice} ({reason}); leave every layer at its place") from None
    stack = files.anatomy.stack
    old, new = (list(model.get_submodule(stack).children()) for model in (template, moved))
    types = [getattr(model.config.get_text_config(), "layer_types", None) for model in (template, moved)]
    if types[0] is not None and [types[0][origin] for origin in origins] != types[1]:
        raise SpecError(f"{advice}: its config cannot say which attention each has; leave every layer at its place")
    for place, (layer, origin) in enumerate(zip(new, origins, strict=True)):
        if signature(layer) != signature(old[origin]):
            raise SpecError(
                f"{advice}: it decides something by a layer's number that its config cannot say, and layer {place}"
                f" would not behave as layer {origin} does; leave every layer at its place"
            )
