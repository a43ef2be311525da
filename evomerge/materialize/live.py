"""The one model that stays resident and becomes candidate after candidate."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.checkpoint import Mix, ParentFiles, Shares, understood
from evomerge.device import free_memory
from evomerge.materialize.compiled import WORTH_COMPILING, why_not
from evomerge.materialize.fold import check_gains
from evomerge.materialize.merger import Job, Merger
from evomerge.materialize.placement import HeldParents, Needs, Placement, place_parents
from evomerge.materialize.prefix import PrefixReuse
from evomerge.materialize.probe import check_scales
from evomerge.materialize.stack import Hop, Stack
from evomerge.materialize.states import chain_of
from evomerge.materialize.tensors import Key, LayerTensors, Wanted
from evomerge.recipe import COMPONENTS, Coefficients, Recipe
from evomerge.space import unchanged

KEPT = 0.25
"""Share of the free memory in which copies of parents' layers are kept for candidates to come."""
STATES = {"cpu": 0.1, "cuda": 0.05}
"""Share of the free memory, beside parents, in which hidden states are kept for candidates to come."""
MOST_STATES = 4 << 30
"""On a CPU."""


class LiveModel:
    """A model that is what the recipe last loaded says.

    It computes in fp32 on a CPU and in the recipe's dtype on an accelerator; its weights carry the rounding of
    the recipe's dtype either way. Layers that candidates take from a parent unchanged are referred to, not copied.
    `notes` says in plain words what goes the slow way, and why.
    """

    def __init__(
        self,
        files: ParentFiles,
        device: torch.device,
        *,
        compiled: bool | None = None,
        reuse: int | None = None,
        others: int = 0,
    ) -> None:
        """`reuse` is how many bytes of hidden states are kept, see `forward`; left out: what is free allows it.

        Of the host's free memory `others` take as much as this one.
        """
        self._others = others
        self.files = files
        self.device = device
        self._compute = torch.float32 if device.type == "cpu" else getattr(torch, files.parents.dtype)
        self.placement = placement_for(files, device, others)
        self.model: PreTrainedModel = self._stock().to(device).eval().requires_grad_(False)
        self.notes: set[str] = set()
        self._has_scales = False
        held = HeldParents(files, self.placement, device)
        compiled = self._can_compile() if compiled is None else compiled
        self.merger = Merger(held.read, held.mask_key, device, product=held.product, compiled=compiled)
        state = self.model.state_dict(keep_vars=True)
        self._outer = {name: state[name].data for name in files.anatomy.outside}
        self._loaded: dict[str, tuple[str, str, int]] = {}
        self.stack = Stack(self.model, files.anatomy)
        room = int(KEPT * sum(free_memory(device, others)[: 1 if device.type == "cuda" else 2]))
        stays = self.placement.where != "streamed"
        self._tensors = LayerTensors(self.merger, room, self.stack.emptied(), borrow=stays)
        self.prefix = PrefixReuse(self.model, self.stack, self._room_for_states() if reuse is None else reuse)
        self._before_hops = tuple(files.anatomy.outer)
        self.load(unchanged(files.parents, files.parents.template))
        self._can_reuse()

    def _stock(self) -> PreTrainedModel:
        """The template as stock transformers loads it."""
        template = self.files.template
        with understood(template.at(), template.config):
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                template.path, config=self.files.config, dtype=self._compute, trust_remote_code=template.trusted
            )
        return model

    def _can_compile(self) -> bool:
        if self.files.anatomy.parameters < WORTH_COMPILING:
            return False
        reason = why_not(self.device)
        self.notes |= {reason} if reason else set()
        return not reason

    def _room_for_states(self) -> int:
        device, host = free_memory(self.device, self._others)
        if self.device.type == "cpu":
            return min(MOST_STATES, int(STATES["cpu"] * host))
        parents = Needs.of(self.files, 2).parents if self.placement.where == "device" else 0
        return max(0, int(STATES["cuda"] * (device - parents)))

    def _can_reuse(self) -> None:
        if not self.prefix.states.room:
            return
        places = self.files.anatomy.outside
        names = self.prefix.before_hops(list(places))
        self._before_hops = tuple(sorted({places[name].part for name in names}))
        reason = self.prefix.why_not()
        if reason:
            self.prefix.states.room = 0
            self.notes.add(f"layers that candidates share are run for each: {type(self.model).__name__}'s {reason}")

    def forward(self, batch: Hashable, inputs: Mapping[str, Any]) -> Any:
        """What the model gives for `inputs`, which are the same whenever `batch` is.

        Equal, bit for bit, to calling `model`; but layers that the model begins with, and that candidates before it
        began with, are not run again where what they gave is still known.
        """
        return self.prefix(batch, inputs)

    def load(self, recipe: Recipe, coefficients: Coefficients | None = None) -> int:
        """Make the model that `recipe` names; returns how many tensors had to be merged anew.

        `coefficients` are what its side file holds; left out, that is read.

        Raises:
            SpecError: a layer has a scale, and this model class cannot have scales; or see `Shares`.
            GainError: the scales multiply to a number that no weights bear.
        """
        self.prefix.begin(())  # A model half made is none that anything is known of.
        check_gains(recipe)
        if not self._has_scales and any(gain != 1.0 for gain in recipe.gains()):
            check_scales(self.files.template, self.files.anatomy)
            self._has_scales = True
        shares = Shares(recipe, self.files.anatomy, coefficients)
        return self._load_outer(recipe, shares) + self._load_layers(recipe, shares)

    def _load_outer(self, recipe: Recipe, shares: Shares) -> int:
        fresh = 0
        for name, weight in self._outer.items():
            dtype = getattr(torch, self.files.anatomy.dtype(name, recipe.dtype))
            mix = shares.mix(self.files.anatomy.places[name])
            key = (mix.text, recipe.dtype, recipe.seed)
            if self._loaded.get(name) != key:
                # Forgotten first: a merge that fails half-way must not pass for the old tensor or the new.
                self._loaded.pop(name, None)
                self.merger.write(Job(mix.blend, name, weight.view(-1), dtype, recipe.seed, mix.fine))
                self._loaded[name] = key
                fresh += 1
        return fresh

    def _load_layers(self, recipe: Recipe, shares: Shares) -> int:
        anatomy, origins, gains = self.files.anatomy, recipe.origins(), recipe.gains()
        keys: list[dict[str, Key]] = []
        hops: list[str] = []
        wanted: dict[Key, Wanted] = {}
        for index, (layer, origin, gain) in enumerate(zip(recipe.layers, origins, gains, strict=True)):
            mixes: dict[str, Mix] = {part: Mix(layer.part(part)) for part in COMPONENTS}
            own = shares.own(index)
            hops.append("\n".join((str(origin), repr(gain), *(mix.text for mix in mixes.values()), *_texts(own))))
            keys.append({})
            for name, place in anatomy.inside[origin].items():
                mix = own.get(place.name) or mixes[place.part]
                key = keys[-1][place.name] = Key(mix.text, name, anatomy.dtype(name, recipe.dtype), recipe.seed)
                kept = anatomy.dtype(name, self.files.parents.dtype) == "float32"
                wanted[key] = Wanted(mix, anatomy.shapes[name], torch.float32 if kept else self._compute)
        fresh = self._tensors.ready(wanted)
        self.stack.arrange(
            [
                Hop(origin, {name: self._tensors[key] for name, key in named.items()}, gain)
                for origin, named, gain in zip(origins, keys, gains, strict=True)
            ]
        )
        outer = [recipe.outer[part].model_dump_json() for part in self._before_hops]
        before = {name: mix for name, mix in shares.own(None).items() if anatomy.places[name].part in self._before_hops}
        self.prefix.begin(chain_of("\n".join((recipe.dtype, str(recipe.seed), *outer, *_texts(before))), hops))
        return fresh


def _texts(own: Mapping[str, Mix]) -> list[str]:
    """What tensors with weights of their own are."""
    return [f"{name} {mix.text}" for name, mix in own.items()]


def placement_for(files: ParentFiles, device: torch.device, others: int = 0) -> Placement:
    """Where the parents of a search will lie on this device, beside so many others like it on the machine."""
    width = 4 if device.type == "cpu" or files.parents.dtype == "float32" else 2
    return place_parents(Needs.of(files, width), device.type, free_memory(device, others))
