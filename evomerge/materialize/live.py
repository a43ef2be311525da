"""The one model that stays resident and is overwritten in place, candidate after candidate."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.checkpoint import ParentFiles, quiet
from evomerge.materialize.compiled import WORTH_COMPILING, why_not
from evomerge.materialize.merger import Job, Merger
from evomerge.materialize.placement import HeldParents, Needs, Placement, place_parents
from evomerge.recipe import Blend, Recipe


class LiveModel:
    """A model whose weights are those of the recipe last loaded.

    It computes in fp32 on a CPU and in the recipe's dtype on an accelerator; its weights carry the rounding of
    the recipe's dtype either way. `notes` says in plain words what goes the slow way, and why.
    """

    def __init__(self, files: ParentFiles, device: torch.device, *, compiled: bool | None = None) -> None:
        self.files = files
        self.device = device
        compute = torch.float32 if device.type == "cpu" else getattr(torch, files.parents.dtype)
        self.placement = placement_for(files, device)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(files.template.path, dtype=compute)
        self.model: PreTrainedModel = model.to(device).eval().requires_grad_(False)
        self.notes: set[str] = set()
        held = HeldParents(files, self.placement, device)
        compiled = self._can_compile() if compiled is None else compiled
        self.merger = Merger(held.read, held.mask_key, device, compiled=compiled)
        state = self.model.state_dict(keep_vars=True)
        self._weights = {name: state[name].data for name in files.anatomy.places}
        self._loaded: dict[str, tuple[Blend, str, int]] = {}

    def _can_compile(self) -> bool:
        if self.files.anatomy.parameters < WORTH_COMPILING:
            return False
        reason = why_not(self.device)
        self.notes |= {reason} if reason else set()
        return not reason

    def load(self, recipe: Recipe) -> int:
        """Make the model that `recipe` names; returns how many tensors had to be merged anew."""
        fresh = 0
        for name, weight in self._weights.items():
            job = Job.of(recipe, self.files.anatomy.places[name], name, weight)
            key = (job.blend, recipe.dtype, recipe.seed)
            if self._loaded.get(name) != key:
                # Forgotten first: a merge that fails half-way must not pass for the old tensor or the new.
                self._loaded.pop(name, None)
                self.merger.write(job)
                self._loaded[name] = key
                fresh += 1
        return fresh


def placement_for(files: ParentFiles, device: torch.device) -> Placement:
    """Where the parents of a search will lie on this device."""
    width = 4 if device.type == "cpu" or files.parents.dtype == "float32" else 2
    memory = (0, 0)
    if device.type == "cuda":
        memory = (torch.cuda.mem_get_info(device)[0], free_host_memory())
    return place_parents(Needs.of(files, width), device.type, memory)


def free_host_memory() -> int:
    """Bytes that can be taken without swapping; where there is no `/proc`, half of all there is."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    facts = dict(line.split(":", 1) for line in table.read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024
