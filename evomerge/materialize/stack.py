"""The layers of a live model, laid out anew for every candidate: modules are light, and refer to tensors."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn
from transformers import PreTrainedModel

from evomerge.checkpoint import Anatomy
from evomerge.errors import SpecError
from evomerge.materialize.fold import Last, last_of

Signature: TypeAlias = tuple[tuple[str, str, tuple[tuple[str, object], ...]], ...]
PLAIN = (bool, int, float, str, type(None))
INDEX = "layer_idx"
TYPES = "layer_types"


class Hop(NamedTuple):
    """One layer of a path: whose conventions it has, its tensors by name in the layer, what its contribution counts."""

    origin: int
    tensors: Mapping[str, nn.Parameter]
    gain: float = 1.0


@dataclass
class _Slot:
    """A layer module for one place of the stack and one kind of layer."""

    module: nn.Module
    owners: dict[str, tuple[nn.Module, str]]
    gain: float = 1.0
    last: tuple[Last, ...] = ()
    filled: dict[str, nn.Parameter] = field(default_factory=dict)

    def fill(self, hop: Hop) -> nn.Module:
        for name, tensor in hop.tensors.items():
            if self.filled.get(name) is not tensor:
                owner, own = self.owners[name]
                held = owner._parameters if own in owner._parameters else owner._buffers
                held[own] = self.filled[name] = tensor
        self.gain = hop.gain
        return self.module


class Stack:
    """Lays hops out as the layers of a model, each with a slot of its own in key-value caches.

    A hop of layer i behaves as the model's own layer i does: the kind of its attention goes with it.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy) -> None:
        owner, _, self._attribute = anatomy.stack.rpartition(".")
        self._owner = model.get_submodule(owner)
        self._config = model.config.get_text_config()
        self._prototypes = list(model.get_submodule(anatomy.stack).children())
        self._kinds = kinds_of(self._prototypes)
        self._types: list[str] | None = getattr(self._config, TYPES, None)
        self._slots: dict[tuple[int, int], _Slot] = {}
        self.hops: list[nn.Module] = []
        self.origins: tuple[int, ...] = ()

    def emptied(self) -> list[nn.Parameter]:
        """The tensors of the layers as they were loaded, which nothing refers to any more."""
        found = []
        for prototype in self._prototypes:
            for module in prototype.modules():
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        found.append(parameter)
                        module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)
        return found

    def arrange(self, hops: Sequence[Hop]) -> None:
        """Make these the layers of the model."""
        self.origins = tuple(hop.origin for hop in hops)
        self.hops = [self._slot(place, hop.origin).fill(hop) for place, hop in enumerate(hops)]
        self.show(self.hops, self.origins)

    def show(self, modules: Sequence[nn.Module], origins: Sequence[int]) -> None:
        """Let the model run through these modules, which stand for layers of these origins."""
        setattr(self._owner, self._attribute, nn.ModuleList(modules))
        self._config.num_hidden_layers = len(modules)
        if self._types is not None:
            self._tell([self._types[origin] for origin in origins])

    def _tell(self, types: list[str]) -> None:
        """Have the config say which kind each layer is.

        Raises:
            SpecError: it works that out by itself, and comes to something else.
        """
        try:
            setattr(self._config, TYPES, types)
        except AttributeError:
            if list(getattr(self._config, TYPES)) == types:
                return
            name = type(self._owner).__name__
            raise SpecError(
                f"{name} cannot have its layers in another order or number; leave every layer at its place"
            ) from None

    def _slot(self, place: int, origin: int) -> _Slot:
        kind = self._kinds[origin]
        if (place, kind) not in self._slots:
            self._slots[place, kind] = self._made(place, self._prototypes[kind])
        return self._slots[place, kind]

    def _made(self, place: int, prototype: nn.Module) -> _Slot:
        # Parameters are shared, and replaced before the first use.
        module = copy.deepcopy(prototype, {id(parameter): parameter for parameter in prototype.parameters()})
        for part in module.modules():
            if isinstance(getattr(part, INDEX, None), int):
                setattr(part, INDEX, place)
        owners = {}
        for name in (*dict(module.named_parameters()), *dict(module.named_buffers())):
            owner, _, own = name.rpartition(".")
            owners[name] = (module.get_submodule(owner), own)
        slot = _Slot(module, owners, last=last_of(prototype))
        for owner in {last.owner for last in slot.last}:
            module.get_submodule(owner).register_forward_hook(_gained(slot))
        return slot


def _gained(slot: _Slot) -> Any:
    """A hook that multiplies what a module gives by the gain of its slot."""

    def hook(_: nn.Module, __: object, output: Any) -> Any:
        if slot.gain == 1.0:
            return output
        if isinstance(output, Tensor):
            return output * slot.gain
        return (output[0] * slot.gain, *output[1:])

    return hook


def kinds_of(layers: Sequence[nn.Module]) -> list[int]:
    """For each layer the first one that differs from it in nothing but weights and its number."""
    first: dict[Signature, int] = {}
    return [first.setdefault(signature(layer), index) for index, layer in enumerate(layers)]


def signature(layer: nn.Module) -> Signature:
    """What a layer is but for its weights and its number: modules, settings, shapes."""
    found = []
    for name, module in layer.named_modules():
        settings = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN) and key != INDEX}
        settings |= {key: tuple(p.shape) for key, p in module._parameters.items() if p is not None}
        found.append((name, type(module).__name__, tuple(sorted(settings.items(), key=lambda item: item[0]))))
    return tuple(found)
