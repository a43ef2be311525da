"""The one model that stays resident and becomes candidate after candidate."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.checkpoint import ParentFiles, quiet
from evomerge.materialize.compiled import WORTH_COMPILING, why_not
from evomerge.materialize.merger import Job, Merger
from evomerge.materialize.placement import HeldParents, Needs, Placement, place_parents
from evomerge.materialize.probe import check_scales
from evomerge.materialize.stack import Hop, Stack
from evomerge.materialize.tensors import Key, LayerTensors, Wanted
from evomerge.recipe import COMPONENTS, Blend, Recipe
from evomerge.space import unchanged

KEPT = 0.25
"""Share of the free memory in which copies of parents' layers are kept for candidates to come."""


class LiveModel:
    """A model that is what the recipe last loaded says.

    It computes in fp32 on a CPU and in the recipe's dtype on an accelerator; its weights carry the rounding of
    the recipe's dtype either way. Layers that candidates take from a parent unchanged are referred to, not copied.
    `notes` says in plain words what goes the slow way, and why.
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
        self._has_scales = False
        held = HeldParents(files, self.placement, device)
        compiled = self._can_compile() if compiled is None else compiled
        self.merger = Merger(held.read, held.mask_key, device, compiled=compiled)
        state = self.model.state_dict(keep_vars=True)
        self._outer = {name: state[name].data for name in files.anatomy.outside}
        self._loaded: dict[str, tuple[Blend, str, int]] = {}
        self.stack = Stack(self.model, files.anatomy)
        room = int(KEPT * sum(free_memory(device)[: 1 if device.type == "cuda" else 2]))
        self._tensors = LayerTensors(self.merger, compute, room, self.stack.emptied())
        self.load(unchanged(files.parents, files.parents.template))

    def _can_compile(self) -> bool:
        if self.files.anatomy.parameters < WORTH_COMPILING:
            return False
        reason = why_not(self.device)
        self.notes |= {reason} if reason else set()
        return not reason

    def load(self, recipe: Recipe) -> int:
        """Make the model that `recipe` names; returns how many tensors had to be merged anew.

        Raises:
            SpecError: a layer has a scale, and this model class cannot have scales.
        """
        if not self._has_scales and any(gain != 1.0 for gain in recipe.gains()):
            check_scales(self.files.template, self.files.anatomy)
            self._has_scales = True
        return self._load_outer(recipe) + self._load_layers(recipe)

    def _load_outer(self, recipe: Recipe) -> int:
        fresh = 0
        for name, weight in self._outer.items():
            job = Job.of(recipe, self.files.anatomy.places[name], name, weight)
            key = (job.blend, recipe.dtype, recipe.seed)
            if self._loaded.get(name) != key:
                # Forgotten first: a merge that fails half-way must not pass for the old tensor or the new.
                self._loaded.pop(name, None)
                self.merger.write(job)
                self._loaded[name] = key
                fresh += 1
        return fresh

    def _load_layers(self, recipe: Recipe) -> int:
        anatomy, origins = self.files.anatomy, recipe.origins()
        keys: list[dict[str, Key]] = []
        wanted: dict[Key, Wanted] = {}
        for layer, origin in zip(recipe.layers, origins, strict=True):
            blends: dict[str, Blend] = {part: layer.part(part) for part in COMPONENTS}
            texts = {part: blend.model_dump_json() for part, blend in blends.items()}
            keys.append({})
            for name, place in anatomy.inside[origin].items():
                key = keys[-1][place.name] = Key(texts[place.part], name, recipe.dtype, recipe.seed)
                wanted[key] = Wanted(blends[place.part], anatomy.shapes[name])
        fresh = self._tensors.ready(wanted)
        self.stack.arrange(
            [
                Hop(origin, {name: self._tensors[key] for name, key in named.items()}, gain)
                for origin, named, gain in zip(origins, keys, recipe.gains(), strict=True)
            ]
        )
        return fresh


def placement_for(files: ParentFiles, device: torch.device) -> Placement:
    """Where the parents of a search will lie on this device."""
    width = 4 if device.type == "cpu" or files.parents.dtype == "float32" else 2
    return place_parents(Needs.of(files, width), device.type, free_memory(device))


def free_memory(device: torch.device) -> tuple[int, int]:
    """Free bytes on the device, none on a CPU, and in the host."""
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0), free_host_memory()


def free_host_memory() -> int:
    """Bytes that can be taken without swapping; where there is no `/proc`, half of all there is."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    facts = dict(line.split(":", 1) for line in table.read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024
