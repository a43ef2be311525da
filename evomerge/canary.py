"""What is tried on a live model before anything is searched: that merging has an effect, and leaves no trace."""

import torch

from evomerge.errors import RunError
from evomerge.materialize import LiveModel
from evomerge.recipe import Folder, Recipe
from evomerge.space import unchanged


@torch.no_grad()  # No inference mode: what is made in it, gradients cannot go back to.
def canary(live: LiveModel) -> None:
    """See that two parents give different logits, and that going back gives the first ones again, bit for bit.

    Raises:
        RunError: merging has no effect, or what was loaded before shows through.
    """
    parents = live.files.parents
    names = list({parent.content(): name for name, parent in parents.models.items()}.values())
    if len(names) < 2:
        return
    first, *others = (unchanged(parents, name) for name in names)
    before = _probe(live, first)
    # A recipe may be a model that is there already, under another address.
    folders = sum(isinstance(parent, Folder) for parent in parents.models.values())
    if folders > 1 and all(torch.equal(before, _probe(live, other)) for other in others):
        raise RunError("canary: two parents with different weights give the same logits; nothing would be searched")
    if not torch.equal(before, _probe(live, first)):
        raise RunError("canary: loading a recipe again gives other logits; scores would depend on what came before")


def _probe(live: LiveModel, recipe: Recipe) -> torch.Tensor:
    live.load(recipe)
    vocabulary = live.model.config.get_text_config().vocab_size
    tokens = torch.arange(1, min(17, vocabulary), device=live.device)[None]
    logits: torch.Tensor = live.model(input_ids=tokens, use_cache=False).logits
    return logits.clone()
