"""Scales as they were published, inputs of layers multiplied, against the gains that stand for them."""

from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS
from families import FAMILIES, make_family
from paths import random_path
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.export import export_recipe
from evomerge.materialize import LiveModel
from evomerge.recipe import Layer, Recipe

EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
PRE_NORM = sorted({*FAMILIES, "gemma", "phi", "starcoder2", "stablelm", "cohere", "granite", "glm4"} - {"olmo2"})


def apart(recipe: Recipe, files: ParentFiles, out: Path, tokens: torch.Tensor) -> float:
    """How far the logits of gains are from those of scaled inputs, relative to how far these are from no scales'."""
    live = LiveModel(files, torch.device("cpu"))
    live.load(recipe)
    bare = recipe.model_copy(update={"layers": tuple(Layer(blend=layer.blend) for layer in recipe.layers)})
    export_recipe(bare, files, out)
    stock = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        unscaled = stock(tokens).logits.clone()
        for layer, module in zip(recipe.layers, stock.get_submodule(files.anatomy.stack).children(), strict=True):
            module.register_forward_pre_hook(lambda _, args, scale=layer.scale: (args[0] * scale, *args[1:]))
        literal = stock(tokens).logits
        return float((live.model(tokens).logits - literal).norm() / (literal - unscaled).norm())


@pytest.mark.parametrize("family", PRE_NORM)
def test_gains_are_scales_but_for_the_epsilon_of_norms(family: str, tmp_path: Path) -> None:
    epsilons = {name: 1e-12 for name in EPSILONS if hasattr(AutoConfig.for_model(family), name)}
    assert epsilons
    paths = make_family(family, tmp_path, ("base", "one"), **epsilons)
    files = open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)
    recipe = random_path(files, 5, len(family))
    assert apart(recipe, files, tmp_path / "out", torch.arange(3, 35).view(2, 16)) < 1e-4


def test_what_the_epsilon_of_norms_makes_of_scales_is_small(tmp_path: Path) -> None:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    files = open_parents(str(DEMO_MODELS / "base"), experts, 0)
    for seed in range(2):
        assert apart(random_path(files, 8, seed), files, tmp_path / str(seed), torch.arange(3, 67)[None]) < 0.01
