"""What a layer adds to the residual stream, and which tensors that is proportional to."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

LAST = {"o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2", "dense_4h_to_h", "w2", "wo"}
"""What model classes call the last linear map of attention and of an MLP."""
SANDWICH = ("post_attention_layernorm.weight", "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")
"""A layer with these norms what its branches give before it is added: there, the norms are last."""
FACTOR = 0.5
LARGER = 3.0
TOLERANCE = 0.02
"""Of a probe's relative deviation; a layer that reads the stream without a norm is off by 0.3 and more."""


class Last(NamedTuple):
    """A tensor that a layer's contribution is proportional to; its norm may compute with one plus the weight."""

    name: str
    owner: str
    one_plus: bool

    def scaled(self, tensor: Tensor, gain: float) -> Tensor:
        """The tensor of a contribution `gain` times as large, in fp32."""
        return ((tensor.float() + self.one_plus) * gain - self.one_plus) if gain != 1.0 else tensor


def last_of(layer: nn.Module) -> tuple[Last, ...]:
    """The tensors that a layer's contribution is proportional to, by their names in the layer."""
    names = [name for name, _ in layer.named_parameters()]
    if all(name in names for name in SANDWICH):
        return tuple(
            Last(name, owner := name.rpartition(".")[0], _one_plus(layer.get_submodule(owner)))
            for name in (SANDWICH[0], SANDWICH[2])
        )
    return tuple(Last(name, name.rpartition(".")[0], one_plus=False) for name in names if _map_of(name) in LAST)


def _map_of(name: str) -> str:
    """What the map is called that a parameter belongs to, be it a module or, among experts, the parameter itself."""
    *modules, last = name.split(".")
    return modules[-1] if last in ("weight", "bias") and modules else last.removesuffix("_bias")


def _one_plus(norm: nn.Module) -> bool:
    """Whether a norm multiplies by one plus its weight, as Gemma's do."""
    with torch.no_grad():
        weight = norm.get_parameter("weight")
        zero = torch.zeros_like(weight, device="cpu")
        made: Tensor = torch.func.functional_call(norm, {"weight": zero}, (torch.ones(1, len(zero)),))
    return bool(made.any())
