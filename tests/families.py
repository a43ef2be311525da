"""Tiny models of many families, with random weights and the demo's tokenizer."""

import shutil
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

DEMO = Path(__file__).resolve().parent.parent / "evomerge/demo/models/base"
LIKE_LLAMA = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = {"num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, object]] = {
    "llama": GROUPED | {"tie_word_embeddings": True},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 64},
    "gemma3_text": GROUPED | {"head_dim": 8, "sliding_window": 64},
    "mistral": GROUPED,
    "phi3": GROUPED,
    "gpt_neox": {},
    "gpt2": {"vocab_size": 512, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "olmo2": GROUPED,
}
MORE: dict[str, dict[str, object]] = {
    "gemma": GROUPED | {"head_dim": 8},
    "phi": {},
    "starcoder2": GROUPED,
    "stablelm": GROUPED,
    "cohere": GROUPED,
    "cohere2": GROUPED | {"sliding_window": 64},
    "granite": GROUPED,
    "granitemoe": GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral": GROUPED | {"num_local_experts": 4},
    "qwen2_moe": GROUPED | {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "qwen3_moe": GROUPED | {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "num_experts_per_tok": 2},
    "olmo": GROUPED,
    "nemotron": GROUPED,
    "gpt_bigcode": {"vocab_size": 512, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "gptj": {"vocab_size": 512, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
    "smollm3": GROUPED,
    "glm4": GROUPED | {"head_dim": 8},
    "falcon": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {},
    "olmo3": GROUPED,
    "exaone4": GROUPED,
}
"""Families of which some tests see how they fare."""


def make_family(
    name: str,
    folder: Path,
    models: tuple[str, ...] = ("base", "one", "two"),
    *,
    dtype: str = "float32",
    **changes: object,
) -> dict[str, Path]:
    """Folders of a base and near relatives of it, by name."""
    own = (FAMILIES | MORE)[name]
    sizes = own if "n_layer" in own else LIKE_LLAMA | own
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(name, **(sizes | special | changes))
    torch.manual_seed(len(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in base.parameters():
            # Norms and biases begin at constants; all should differ between models.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    found = {}
    for seed, label in enumerate(models):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter_name, parameter in base.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator) * (0.02 if seed else 0.0)
                parameter.copy_(weights[parameter_name] + noise)
        path = folder / label
        saved = base.to(getattr(torch, dtype))
        saved.save_pretrained(path, save_original_format="tral" not in name and "moe" not in name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(DEMO / file, path / file)
        base = base.to(torch.float32)
        found[label] = path
    return found
