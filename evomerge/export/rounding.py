"""What folding scales into 16-bit weights costs, measured."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, quiet
from evomerge.device import free_host_memory
from evomerge.materialize import LiveModel
from evomerge.recipe import Recipe

PROBE = (4, 64)
"""Random tokens (sequences, length) that the logits are compared on."""
SHARE = 0.5
"""Of the free memory, which two models in fp32 may take."""


def rounding_remark(recipe: Recipe, files: ParentFiles, folder: Path) -> str | None:
    """How far the folder's logits are from the searched model's, in a sentence; None where nothing is rounded twice.

    A scale multiplies what a layer adds in the searched model, and a weight in the folder, which is rounded after it.
    """
    if recipe.dtype == "float32" or all(gain == 1.0 for gain in recipe.gains()):
        return None
    what = f"scales are folded into {recipe.dtype} weights"
    sizes = (torch.Size(files.anatomy.shapes[name]).numel() for name, _ in files.anatomy.of_depth(recipe.origins()))
    if 2 * 4 * max(sum(sizes), files.anatomy.parameters) > SHARE * free_host_memory():
        return f"{what}: what rounding does to the logits was not measured, which takes more memory than is free"
    return (
        f"{what}: logits differ from the searched model's by at most {_apart(recipe, files, folder):.1g} of their range"
    )


@torch.inference_mode()
def _apart(recipe: Recipe, files: ParentFiles, folder: Path) -> float:
    live = LiveModel(files, torch.device("cpu"), compiled=False)
    live.load(recipe)
    with quiet():
        trusted = files.template.trusted
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trusted).eval()
    words = live.model.config.get_text_config().vocab_size
    tokens = torch.randint(words, PROBE, generator=torch.Generator().manual_seed(0))
    ours: Tensor = live.model(input_ids=tokens, use_cache=False).logits
    theirs: Tensor = stock(input_ids=tokens, use_cache=False).logits
    return float((ours - theirs).abs().max() / (ours.max() - ours.min()))
