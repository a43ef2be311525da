"""How many tokens one forward pass may take."""

import torch
from transformers import PreTrainedModel

from evomerge.device import free_host_memory, free_on

IN_CACHE = 1024
"""On a CPU: what keeps activations in the processor's cache."""
FULL = 65536
"""On a GPU: what fills any."""
BACK = 4096
"""On a CPU, of a pass that gradients go back through: it keeps all activations, and each has a price of its own."""
LEAST = 256
SHARE = 0.5
"""Of the memory that is free beside parents and live model; the rest is for logits, masks and the allocator."""


class TokenBudget:
    """Padded tokens of one forward pass, fewer once the device's memory turned out too small for them."""

    def __init__(self, model: PreTrainedModel, *, back: bool = False) -> None:
        """`back` says that gradients go back through the pass."""
        self._device = model.device
        self.token_bytes = kept_bytes(model) if back else token_bytes(model)
        self.tokens = IN_CACHE
        if model.device.type == "cuda":
            self.tokens = self._fitting(FULL, free_on(model.device))
        elif back:
            self.tokens = self._fitting(BACK, free_host_memory())

    def _fitting(self, most: int, free: int) -> int:
        return max(LEAST, min(most, int(free * SHARE) // self.token_bytes))

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


def kept_bytes(model: PreTrainedModel) -> int:
    """Memory that a token takes until gradients have come back: the activations of every layer."""
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Two norms, their inputs, in fp32 too; queries, keys, values, turned and not, what attention gives, and its map.
    wide = 16 * max(config.hidden_size, config.num_attention_heads * head)
    inner = 5 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    width: int = model.dtype.itemsize
    return int(config.num_hidden_layers * (wide + inner) * width)
