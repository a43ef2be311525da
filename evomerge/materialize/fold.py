"""What a layer adds to the residual stream, and which tensors that is proportional to."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

LAST = {
    "o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2", "fc_out", "dense_4h_to_h", "output_linear", "w2", "wo",
}  # fmt: skip
"""What model classes call the last linear map of attention and of an MLP."""
SANDWICHES = (
    ("pre_feedforward_layernorm.weight", "post_attention_layernorm.weight", "post_feedforward_layernorm.weight"),
    ("post_attention_layernorm.weight", "post_self_attn_layernorm.weight", "post_mlp_layernorm.weight"),
)
"""What Gemma and GLM call the norm before an MLP, and those of what attention and MLP give: these are last there."""


class Last(NamedTuple):
    """A tensor that a layer's contribution is proportional to; its norm may compute with one plus the weight."""

    name: str
    owner: str
    one_plus: bool

    def scaled(self, tensor: Tensor, gain: float) -> Tensor:
        """The tensor of a contribution `gain` times as large, in fp32."""
        one = float(self.one_plus)
        return ((tensor.float() + one) * gain - one) if gain != 1.0 else tensor


def last_of(layer: nn.Module) -> tuple[Last, ...]:
    """The tensors that a layer's contribution is proportional to, by their names in the layer."""
    names = [name for name, _ in layer.named_parameters()]
    for sandwich in SANDWICHES:
        if all(name in names for name in sandwich):
            return tuple(
                Last(name, owner := name.rpartition(".")[0], _one_plus(layer.get_submodule(owner)))
                for name in sandwich[1:]
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
