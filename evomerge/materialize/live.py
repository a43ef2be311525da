"""The one model that stays resident and is overwritten in place, candidate after candidate."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.checkpoint import ParentFiles, quiet
from evomerge.materialize.merger import Merger
from evomerge.materialize.placement import Placement, place_parents
from evomerge.recipe import Blend, Recipe


class LiveModel:
    """A model whose weights are those of the recipe last loaded.

    It computes in fp32 on a CPU and in the recipe's dtype on an accelerator; its weights carry the rounding of
    the recipe's dtype either way.
    """

    def __init__(self, files: ParentFiles, device: torch.device, *, compiled: bool | None = None) -> None:
        self.files = files
        self.device = device
        compute = torch.float32 if device.type == "cpu" else getattr(torch, files.parents.dtype)
        self.placement = placement_for(files, device)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(files.template.path, dtype=compute)
        self.model: PreTrainedModel = model.to(device).eval().requires_grad_(False)
        self.merger = Merger(files, self.placement, device, compiled=compiled)
        state = self.model.state_dict(keep_vars=True)
        self._weights = {name: state[name].data for name in files.anatomy.places}
        self._loaded: dict[str, tuple[Blend, str, int]] = {}

    def load(self, recipe: Recipe) -> int:
        """Make the model that `recipe` names; returns how many tensors had to be merged anew."""
        fresh = 0
        for name, weight in self._weights.items():
            key = (self.merger.blend(recipe, name), recipe.dtype, recipe.seed)
            if self._loaded.get(name) != key:
                # Forgotten first: a merge that fails half-way must not pass for the old tensor or the new.
                self._loaded.pop(name, None)
                self.merger.write(recipe, name, weight)
                self._loaded[name] = key
                fresh += 1
        return fresh


def placement_for(files: ParentFiles, device: torch.device) -> Placement:
    """Where the parents of a search will lie on this device."""
    width = 4 if device.type == "cpu" or files.parents.dtype == "float32" else 2
    memory = (0, 0)
    if device.type == "cuda":
        memory = (torch.cuda.mem_get_info(device)[0], free_host_memory())
    live = files.anatomy.parameters * width
    return place_parents(len(files.checkpoints), files.size(), live, device.type, memory)


def free_host_memory() -> int:
    """Bytes that can be taken without swapping; where there is no `/proc`, half of all there is."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    facts = dict(line.split(":", 1) for line in table.read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024
