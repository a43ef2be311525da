"""Where each tensor of a model sits: which layer, which component, which group outside the stack.

Read off the model class (built without memory), so a family that nobody here has heard of works too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import build_glob_alternation

from evomerge.errors import SpecError
from evomerge.recipe import Component, Dtype

HALVES: tuple[Dtype, ...] = ("float16", "bfloat16")
OUTER = ("embeddings", "norm", "head", "other")


@dataclass(frozen=True)
class Place:
    """A tensor's place: a layer and one of its components, or a group outside the stack."""

    layer: int | None
    part: str
    name: str
    """The tensor's name within its layer; its full name outside the stack."""

    def in_layer(self, layer: int | None) -> "Place":
        """The same place in another layer, if one is given; outside the stack there is none."""
        return self if layer is None or self.layer is None else Place(layer, self.part, self.name)


@dataclass(frozen=True)
class Anatomy:
    """The tensors of a model class by their name in memory, each once (tied copies left out)."""

    places: dict[str, Place]
    shapes: dict[str, tuple[int, ...]]
    layers: int
    stack: str
    """Name of the list of layers, such as `model.layers`."""
    kept: Mapping[Dtype, frozenset[str]] = field(default_factory=dict)
    """Tensors that stock loading holds in fp32 where the others are in this dtype."""

    @property
    def outer(self) -> tuple[str, ...]:
        """The groups outside the stack that this class has."""
        found = {place.part for place in self.places.values() if place.layer is None}
        return tuple(group for group in OUTER if group in found)

    def parts(self, origins: Sequence[int] | None = None) -> dict[str, str]:
        """Where each tensor of a model is, as `Parents.tensors` has it; its layers come from `origins`, or are all."""
        places = (place for _, place in self.of_depth(range(self.layers) if origins is None else origins))
        return {self.at(at): at.part if at.layer is None else f"{at.layer}.{at.part}" for at in places}

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones once."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def dtype(self, name: str, most: Dtype) -> Dtype:
        """The dtype of a tensor in a model of which most are in another."""
        return "float32" if name in self.kept.get(most, ()) else most

    @cached_property
    def outside(self) -> dict[str, Place]:
        """Places of the tensors outside the stack, by name."""
        return {name: place for name, place in self.places.items() if place.layer is None}

    @cached_property
    def inside(self) -> tuple[dict[str, Place], ...]:
        """Places of each layer's tensors, by name."""
        found: tuple[dict[str, Place], ...] = tuple({} for _ in range(self.layers))
        for name, place in self.places.items():
            if place.layer is not None:
                found[place.layer][name] = place
        return found

    def of_depth(self, origins: Sequence[int]) -> Iterator[tuple[str, Place]]:
        """The tensors of a model whose layers come from `origins`: their names there, their places in the model."""
        yield from self.outside.items()
        for layer, origin in enumerate(origins):
            for name, place in self.inside[origin].items():
                yield name, place.in_layer(layer)

    def in_layer(self, name: str, layer: int | None) -> str:
        """The tensor that stands where `name` stands, but in another layer."""
        return self.at(self.places[name].in_layer(layer))

    def at(self, place: Place) -> str:
        """Name in memory of the tensor at a place."""
        return place.name if place.layer is None else f"{self.stack}.{place.layer}.{place.name}"


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Where each tensor of `model` sits.

    Raises:
        SpecError: the class has no list of layers as long as its config says, or tensors that are no weights.
    """
    stack, layers = _stack(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in model.all_tied_weights_keys}
    odd = next((name for name, tensor in state.items() if not tensor.is_floating_point()), None)
    if odd is not None:
        kind = str(state[odd].dtype).removeprefix("torch.")
        raise SpecError(
            f"{type(model).__name__} has {odd} of {kind}, which cannot be merged; this family is not supported"
        )
    places = {name: _place(model, name, stack) for name in state}
    kept = {dtype: _kept(model, dtype, places) for dtype in HALVES}
    return Anatomy(places, {name: tuple(state[name].shape) for name in places}, len(layers), stack, kept)


def _kept(model: PreTrainedModel, dtype: Dtype, names: Iterable[str]) -> frozenset[str]:
    plan = model._get_dtype_plan(getattr(torch, dtype))
    if not plan:
        return frozenset()
    pattern, *_ = build_glob_alternation(list(plan))
    return frozenset(name for name in names if pattern.search(name))


def _stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    depth = model.config.get_text_config().num_hidden_layers
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth}
    if not lists:
        raise SpecError(f"{type(model).__name__} has no list of {depth} layers; this family is not supported")
    # A stack nested in a layer (experts of one layer, say) has the longer name.
    name = min(lists, key=lambda key: (key.count("."), key))
    return name, lists[name]


def _place(model: PreTrainedModel, name: str, stack: str) -> Place:
    if not name.startswith(f"{stack}."):
        return Place(None, _outer_group(model, name), name)
    index, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return Place(int(index), _component(list(_owners(model, name, f"{stack}.{index}"))), rest)


def _owners(model: PreTrainedModel, name: str, below: str) -> Iterator[nn.Module]:
    """The modules from just below `below` down to the one that holds the tensor."""
    parts = name.split(".")
    for end in range(below.count(".") + 2 if below else 1, len(parts)):
        yield model.get_submodule(".".join(parts[:end]))


def _component(owners: list[nn.Module]) -> Component:
    kinds = [type(owner).__name__.lower() for owner in owners]
    if kinds and "norm" in kinds[-1]:
        return "norm"
    if any("attention" in kind or "attn" in kind for kind in kinds):
        return "attention"
    return "mlp"


def _outer_group(model: PreTrainedModel, name: str) -> str:
    owner = list(_owners(model, name, ""))[-1]
    if owner is model.get_output_embeddings():
        return "head"
    if isinstance(owner, nn.Embedding):
        return "embeddings"
    return "norm" if "norm" in type(owner).__name__.lower() else "other"
