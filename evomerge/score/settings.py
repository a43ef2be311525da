"""Settings of generation: which leave greedy decoding what it is, and which only lm-eval's HFLM honours."""

from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs
from transformers import GenerationConfig

NATIVE = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p"}
"""What a task may say of generation without its being more than greedy decoding, as long as nothing is sampled."""
HARMLESS = NATIVE | {
    "top_h", "epsilon_cutoff", "eta_cutoff",  # of sampling
    "max_length", "early_stopping", "length_penalty",  # of what lm-eval gives itself, and of beams
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
    "use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits",
    "transformers_version",
}  # fmt: skip
"""What a generation config may hold beside."""
NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "num_return_sequences": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "guidance_scale": 1.0,
    "penalty_alpha": 0.0,
}
"""Values under which the rest is nothing but the largest logit; so is what is empty or off."""


def samples(arguments: dict[str, Any]) -> bool:
    """Whether these arguments of generation leave anything to chance."""
    return bool(normalize_gen_kwargs(dict(arguments), 1)["do_sample"])


def odd_arguments(arguments: dict[str, Any]) -> set[str]:
    """Which of a task's arguments of generation are more than greedy decoding."""
    settings = normalize_gen_kwargs(dict(arguments), 1)
    odd = {key for key, value in settings.items() if key not in NATIVE and not _says_nothing(key, value)}
    return odd | ({"sampling"} if settings["do_sample"] is not False else set())


def odd_config(config: GenerationConfig) -> set[str]:
    """Which settings of a generation config are more than greedy decoding, whoever wrote them."""
    said = {key: value for key, value in vars(config).items() if not key.startswith("_") and key not in HARMLESS}
    return {key for key, value in said.items() if not _says_nothing(key, value)}


def _says_nothing(key: str, value: Any) -> bool:
    return value is None or value is False or value in ([], {}) or (key in NEUTRAL and value == NEUTRAL[key])
