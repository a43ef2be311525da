"""How many tokens one forward pass may take."""

import torch
from transformers import PreTrainedModel

from evomerge.device import free_on

IN_CACHE = 1024
"""On a CPU: what keeps activations in the processor's cache."""
FULL = 65536
"""On a GPU: what fills any."""
LEAST = 256
SHARE = 0.5
"""Of the memory that is free beside parents and live model; the rest is for logits, masks and the allocator."""


class TokenBudget:
    """Padded tokens of one forward pass, fewer once the device's memory turned out too small for them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._device = model.device
        self.tokens = IN_CACHE
        if model.device.type == "cuda":
            self.tokens = max(LEAST, min(FULL, int(free_on(model.device) * SHARE) // token_bytes(model)))

    def shrink(self, tried: int) -> bool:
        """Half of what was tried from now on, if there is any sense in it."""
        self.tokens = min(self.tokens, max(LEAST, tried // 2))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.tokens < tried


def token_bytes(model: PreTrainedModel) -> int:
    """Memory that a token takes: keys and values in every layer, and the activations of the widest layer."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head
    # Residual, its norm in fp32, queries, keys, values and what attention gives; gate, up and their product.
    active = 8 * max(config.hidden_size, heads * head) + 3 * (getattr(config, "intermediate_size", None) or 0)
    width: int = model.dtype.itemsize
    return int(cached + active) * width
