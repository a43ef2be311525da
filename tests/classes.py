"""Every causal language model of transformers, built small: two relatives merged, and what came of it.

As a script it goes through all of them, each in a process of its own with limits on time and memory:
`python tests/classes.py [--seconds 60] [TYPE ...]`.
"""

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from evomerge.assemble import merge
from evomerge.checkpoint import open_parents, quiet
from evomerge.errors import EvomergeError
from evomerge.materialize import LiveModel
from evomerge.recipe import Blend, Layer, Recipe, Source

TOKENIZER = Path(__file__).resolve().parent.parent / "evomerge/demo/models/base"
TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
TOKENS = torch.arange(3, 19)[None]
MOST = 20_000_000
"""Weights above which a model is not small."""
MEMORY = 6 << 30
SIZES: dict[int, str] = {
    512: "vocab_size n_words vocab_size_per_layer_input encoder_hash_byte_group_vocab",
    128: "max_position_embeddings n_positions n_ctx max_seq_len seq_length max_sequence_length max_source_positions"
    " max_target_positions context_length",
    64: "intermediate_size ffn_dim n_inner d_ff ffn_hidden_size encoder_ffn_dim decoder_ffn_dim feed_forward_size"
    " d_inner mamba_d_ssm"
    " block_ff_dim mlp_hidden_size ffn_intermediate_size intermediate_dim",
    32: "hidden_size n_embd d_model dim embedding_size word_embed_proj_dim model_dim attention_hidden_size lru_width"
    " hidden_dim decoder_hidden_size lm_hidden_size emb_dim",
    16: "moe_intermediate_size shared_expert_intermediate_size sliding_window attention_window_size moe_ffn_hidden_size"
    " expert_ffn_hidden_size moe_shared_expert_intermediate_size window_size attention_chunk_size chunk_size"
    " local_window_size mamba_chunk_size hidden_size_per_layer_input compress_dim image_size mamba_d_head",
    8: "head_dim v_head_dim kv_lora_rank q_lora_rank qk_head_dim attention_head_dim global_head_dim kv_channels"
    " linear_key_head_dim linear_value_head_dim index_head_dim swa_head_dim swa_v_head_dim patch_size time_step_rank"
    " mamba_dt_rank o_lora_rank gate_low_rank_dim d_head laurel_rank mamba_headdim",
    4: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"
    " num_attention_heads n_head n_heads encoder_attention_heads decoder_attention_heads num_experts num_local_experts"
    " n_routed_experts moe_num_experts qk_rope_head_dim qk_nope_head_dim mamba_d_state state_size"
    " linear_num_value_heads linear_num_heads rotary_dim mamba_n_heads",
    2: "num_key_value_heads num_kv_heads num_experts_per_tok moe_top_k top_k moe_topk num_experts_per_token n_kv_heads"
    " linear_num_key_heads num_global_key_value_heads index_n_heads moe_k swa_num_key_value_heads",
    1: "n_group topk_group first_k_dense_replace n_shared_experts num_key_value_groups num_expert_group"
    " eos_token_id bos_token_id mamba_n_groups n_groups num_shared_experts moe_num_shared_experts",
    0: "pad_token_id num_mtp_layers num_nextn_predict_layers num_kv_shared_layers",
}
SMALL = {key: size for size, keys in SIZES.items() for key in keys.split()}
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
FILLED = [
    "num_experts_per_tok",
    "topk_group",
    "n_group",
    "head_dim",
    "num_key_value_heads",
    "n_routed_experts",
    "num_local_experts",
]
"""Keys that some classes leave out, and cannot do without."""
VARIANTS: tuple[dict[str, int], ...] = (
    {},
    {"head_dim": 4},
    {"num_key_value_heads": 4},
    {"hidden_size": 64},
    {"head_dim": 16},
    dict.fromkeys(DEPTHS, 6),
    {"num_attention_heads": 2, "num_key_value_heads": 1},
    {"hidden_size": 128, "d_model": 128},
    {"head_dim": 4, "num_key_value_heads": 4},
    {"num_hidden_layers": 2, "num_layers": 2},
    {"num_heads": 8},
    {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
)
"""Other sizes to try where a class cannot be built with those above."""


class Outcome(NamedTuple):
    """What came of a class: `right`, `refused`, `large` (it could not be built small) or `wrong`, and in what words."""

    kind: str
    words: str = ""


def shrunk(plain: dict[str, Any], other: dict[str, int]) -> dict[str, Any]:
    """A config with small sizes, in its inner configs too; lists that go by layers are as long as there are layers."""
    sizes = SMALL | other
    depth, new = next((plain[key] for key in DEPTHS if plain.get(key)), None), sizes[DEPTHS[0]]
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not str(k).isdigit() or int(k) < new}
            found[key] = shrunk(kept, other)
        elif isinstance(value, list) and depth and len(value) == depth:
            found[key] = (value * new)[:new]
        elif key in sizes and isinstance(value, int) and not isinstance(value, bool):
            found[key] = min(value, sizes[key]) if key.endswith("_token_id") else sizes[key]
        else:
            found[key] = sizes[key] if value is None and key in FILLED and key in other else value
    return found


def small_model(kind: str) -> PreTrainedModel | str:
    """A small model of this type that computes something, or why there is none."""
    reasons = []
    for other in (*VARIANTS, {key: SMALL[key] for key in FILLED}):
        try:
            plain = CONFIG_MAPPING[kind]().to_dict()
            config = CONFIG_MAPPING[kind].from_dict(shrunk(plain, other))
            with torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
            if size > MOST:
                reasons.append(f"{size:,} weights")
                continue
            torch.manual_seed(1)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            logits_of(model)
        except Exception as error:  # noqa: BLE001  Whatever keeps a class from being built small.
            reasons.append(f"{type(error).__name__}: {str(error)[:120]}")
        else:
            return model
    return reasons[0]


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    logits = model(input_ids=TOKENS, use_cache=False).logits
    return logits.clone()


def relatives(model: PreTrainedModel, folder: Path, *, original: bool) -> dict[str, str]:
    """Two folders of this model with other weights in each."""
    found = {}
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        path = folder / name
        shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(path, save_original_format=original)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(TOKENIZER / file, path / file)
        found[name] = str(path)
    return found


def mean_of(files: Any) -> Recipe:
    """The recipe for the mean of all parents."""
    names = files.parents.names

    def mean(layer: int | None = None) -> Blend:
        return Blend(sources=tuple(Source(parent=name, layer=layer, weight=1 / len(names)) for name in names))

    layers = tuple(Layer(blend=mean(i)) for i in range(files.parents.layers))
    return files.parents.recipe(layers, {group: mean() for group in files.parents.outer})


def stock(folder: Path | str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def faults(paths: dict[str, str], out: Path) -> Iterator[str]:
    """In what the mean of two folders, alive and exported, is not the mean of what stock transformers loads of them."""
    files = open_parents(None, paths, 0)
    recipe = mean_of(files)
    live = LiveModel(files, torch.device("cpu"), reuse=0)
    live.load(recipe)
    merge(recipe, out, force=True)
    one, two, mean = (stock(folder).state_dict() for folder in (*paths.values(), out))
    for name, tensor in mean.items():
        if not torch.allclose(tensor.double(), (one[name].double() + two[name].double()) / 2, rtol=1e-6, atol=1e-7):
            yield f"{name} is not the mean"
    if not torch.equal(logits_of(live.model), logits_of(stock(out))):
        yield "the resident model gives other logits than the exported one"
    if torch.equal(logits_of(live.model), logits_of(stock(paths["one"]))):
        yield "merging has no effect"


def tried(kind: str, folder: Path) -> Outcome:
    """What comes of merging two small models of a type."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        model = small_model(kind)
        if isinstance(model, str):
            return Outcome("large", model)
        try:
            found = list(faults(relatives(model, folder, original=True), folder / "out"))
        except EvomergeError as refusal:
            if "another arrangement" not in str(refusal):
                return Outcome("refused", str(refusal).replace(str(folder), ""))
            try:
                found = list(faults(relatives(model, folder, original=False), folder / "out"))
            except EvomergeError as again:
                return Outcome("refused", str(again).replace(str(folder), ""))
            return (
                Outcome("wrong", found[0]) if found else Outcome("right", "as written with save_original_format=False")
            )
        return Outcome("wrong", found[0]) if found else Outcome("right")


def _apart(kind: str, pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = tried(kind, Path(folder))
        except Exception as error:  # noqa: BLE001  A traceback is what is looked for.
            last = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
            outcome = Outcome("wrong", words)
        pipe.send(outcome)


def tried_apart(kind: str, seconds: float) -> Outcome:
    """The same in a process of its own, for so many seconds at most."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_apart, args=(kind, there))
    process.start()
    there.close()
    outcome = Outcome("wrong", f"no end in {seconds:g} s")
    if here.poll(seconds):
        try:
            outcome = here.recv()
        except EOFError:
            outcome = Outcome("wrong", "the process died")
    process.kill()
    process.join()
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description="merge small models of every causal class of transformers")
    parser.add_argument("types", nargs="*", default=TYPES)
    parser.add_argument("--seconds", type=float, default=90.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for kind in arguments.types:
        outcome = tried_apart(kind, arguments.seconds)
        counts[outcome.kind] += 1
        print(f"{kind:28} {outcome.kind:8} {' '.join(outcome.words.split())}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()), "of", sum(counts.values()))
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
