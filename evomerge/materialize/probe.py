"""Whether a model class can have scales: whether scaling a layer's input is scaling what the layer adds."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from evomerge.checkpoint import Anatomy, Checkpoint, blank_model, moved_config, quiet, read_config, text_part
from evomerge.errors import SpecError
from evomerge.materialize.fold import last_of
from evomerge.materialize.stack import kinds_of

WORDS = 16
"""Vocabulary of the probe."""
LARGER = 3.0
TOLERANCE = 0.02
"""Of what scales change; a class whose layers read the stream without a norm is off by 0.3 and more."""


def check_scales(template: Checkpoint, anatomy: Anatomy) -> None:
    """See that the class gives the same logits for scaled inputs of layers and for the gains that stand for them.

    It is tried on a model of the class with random weights, few words and one layer of each kind, in fp32.

    Raises:
        SpecError: it does not, so that no ordinary checkpoint can hold a scale.
    """
    config = read_config(template)
    name = type(blank_model(config, trusted=template.trusted)).__name__
    model = _small(template, config, anatomy)
    if model is None or _deviation(model, list(model.get_submodule(anatomy.stack).children())) > TOLERANCE:
        raise SpecError(
            f"{name}: multiplying what its layers read is not dividing what they add (they may read the residual"
            " stream without a norm), so that a scale is no ordinary checkpoint; leave space.scale out, and scale in"
            " recipes"
        )


def _small(template: Checkpoint, config: PretrainedConfig, anatomy: Anatomy) -> PreTrainedModel | None:
    kinds = kinds_of(list(blank_model(config, trusted=template.trusted).get_submodule(anatomy.stack).children()))
    plain = moved_config(template.config, config, sorted(set(kinds)))
    text_part(plain, config).update(vocab_size=WORDS, pad_token_id=None)
    # Classes initialise weights from the global generator, which is not ours.
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            small = type(config).from_dict(plain)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                small, dtype=torch.float32, trust_remote_code=template.trusted
            )
        except (ValueError, TypeError):
            return None
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                _randomise(parameter, generator, embeds=isinstance(module, nn.Embedding))
    return model.eval().requires_grad_(False)


def _randomise(parameter: nn.Parameter, generator: torch.Generator, *, embeds: bool) -> None:
    """Make the stream, and what layers add to it, so large that the norms' epsilon does not count."""
    if parameter.ndim < 2:
        parameter.data.uniform_(0.5, 1.5, generator=generator)
    else:
        parameter.data.normal_(0.0, 1.0 if embeds else parameter.shape[-1] ** -0.5, generator=generator)


@torch.inference_mode()
def _deviation(model: PreTrainedModel, layers: Sequence[nn.Module]) -> float:
    """How far gains miss scales, relative to what scales change in the logits."""
    tokens = torch.arange(1, WORDS)[None]

    def logits() -> Tensor:
        made: Tensor = model(input_ids=tokens, use_cache=False).logits
        return made.clone()

    plain = logits()
    hooks = [layer.register_forward_pre_hook(_scaled_by(LARGER), with_kwargs=True) for layer in layers]
    scaled = logits()
    for hook in hooks:
        hook.remove()
    for depth, layer in enumerate(layers, 1):
        for last in last_of(layer):
            parameter = layer.get_parameter(last.name)
            parameter.copy_(last.scaled(parameter, LARGER**-depth))
    return float((logits() - scaled).norm() / (scaled - plain).norm())


def _scaled_by(scale: float) -> Callable[..., Any]:
    """A hook that multiplies the residual stream before a layer."""

    def hook(
        _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if positional:
            return (positional[0] * scale, *positional[1:]), named
        return positional, {**named, "hidden_states": named["hidden_states"] * scale}

    return hook
