"""Adapters that PEFT writes, over models of any family."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

ATTENTION = ["q_proj", "v_proj", "o_proj"]


def trained(
    base: Path, out: Path, *, dtype: torch.dtype = torch.float32, seed: int = 5, size: float = 0.1, **settings: Any
) -> Path:
    """An adapter over a folder, no part of which is as it began."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    found = get_peft_model(model, LoraConfig(**{"target_modules": ATTENTION, "task_type": "CAUSAL_LM"} | settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    found.save_pretrained(out)
    if dtype != torch.float32:
        file = out / "adapter_model.safetensors"
        save_file({name: part.to(dtype) for name, part in load_file(file).items()}, file, {"format": "pt"})
    return out
