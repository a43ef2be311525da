"""What transformers makes of a model folder: its config, class and tokenizer, or one line about what it trips over."""

import contextlib
import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.side import CONFIG, TOKENIZER_FILES
from evomerge.errors import EvomergeError, SpecError

TIED = "tie_word_embeddings"
NOTHING: Mapping[str, Any] = {}
CLASS = "AutoModelForCausalLM"
ASKING = "trust_remote_code"
"""What transformers says where it would have to run code of a folder."""
SHORT = 3
"""Letters from which on a word of a config is looked for in what a library says of it."""


def read_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """The folder's config as transformers understands it.

    Raises:
        SpecError: transformers does not understand it.
    """
    with understood(checkpoint.at(CONFIG), checkpoint.config):
        return AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=checkpoint.trusted)


def blank_model(config: PretrainedConfig, *, trusted: bool = False) -> PreTrainedModel:
    """The model without any memory behind its weights; by code of its folder only if that is `trusted`."""
    with quiet(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    return model


def read_model(checkpoint: Checkpoint, config: PretrainedConfig) -> PreTrainedModel:
    """The class of the folder's model, blank.

    Raises:
        SpecError: transformers has no causal language model of this kind, or cannot build it from the config.
    """
    with understood(checkpoint.at(CONFIG), checkpoint.config):
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and CLASS not in getattr(config, "auto_map", {}):
            raise SpecError(
                f"{checkpoint.at(CONFIG)}: model_type is {config.model_type!r}, of which transformers has no causal"
                " language model; evomerge merges models that AutoModelForCausalLM loads"
            )
        return blank_model(config, trusted=checkpoint.trusted)


def read_tokenizer(source: Path | Checkpoint) -> Any:
    """The tokenizer of a folder as transformers understands it; by code of the folder only if that is trusted.

    Raises:
        SpecError: transformers does not understand it.
    """
    folder, trusted = (source, False) if isinstance(source, Path) else (source.path, source.trusted)
    with understood(folder / (_broken(folder) or TOKENIZER_FILES[0])):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)


def _broken(folder: Path) -> str | None:
    """A file of the tokenizer that is not valid JSON, if one is."""
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.suffix == ".json" and path.is_file():
            try:
                json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError):
                return name
    return None


def untied(config: PretrainedConfig) -> PretrainedConfig:
    """The same config with nothing tied."""
    found = copy.deepcopy(config)
    for part in {id(part): part for part in (found, found.get_text_config())}.values():
        setattr(part, TIED, False)
    return found


def as_tied(plain: dict[str, Any], its: PretrainedConfig, merged: PretrainedConfig) -> dict[str, Any]:
    """A config.json, which transformers reads as `its`, that says of ties what the config of a merged model says."""
    for key, part, other in (("", its, merged), ("text_config", its.get_text_config(), merged.get_text_config())):
        if getattr(part, TIED, None) != getattr(other, TIED, None):
            inner = plain.setdefault(key, {}) if key and part is not its else plain
            inner[TIED] = getattr(other, TIED)
    return plain


@contextlib.contextmanager
def understood(where: object, config: Mapping[str, Any] = NOTHING) -> Iterator[None]:
    """Quiet in which whatever a library raises over a file becomes one line.

    `where` is that file, for the message, and `config` what is in it.

    Raises:
        SpecError: something was raised; it names the file, what was said, and the entries that this seems to be about.
    """
    try:
        with quiet():
            yield
    except EvomergeError:
        raise
    except Exception as error:  # noqa: BLE001  What a library raises over a file it does not understand varies too much.
        if ASKING in str(error):
            raise SpecError(
                f"{where} is understood only by code that comes with the model, and that is not trusted; read it, and"
                " if you trust it set models.trust_remote_code: true (merge, score: --trust-remote-code)"
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        blamed = ", ".join(f"{key}: {value!r}" for key, value in _named_in(reason, config)[:3])
        about = f"; it has {blamed}" if blamed else ""
        raise SpecError(f"{where} is not understood ({reason}){about}; correct it, or copy it anew") from None


def _named_in(reason: str, config: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Entries of a config that what was said seems to be about."""
    found = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _named_in(reason, value, f"{above}{key}.")
        elif key in reason or (isinstance(value, str) and len(value) >= SHORT and value in reason):
            found.append((f"{above}{key}", value))
        elif isinstance(value, int) and re.search(rf"\b{value}\b", reason):
            # A number alone says little; a word of its key beside it says what it is.
            found += [(f"{above}{key}", value)] * any(len(w) > SHORT and w in reason for w in key.split("_"))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' advice about configs, its and the hub's progress bars off the terminal for a while."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        # transformers switches the hub's bars together with its own; they may have been set apart.
        if hub_bars != (not are_progress_bars_disabled()):
            (enable_progress_bars if hub_bars else disable_progress_bars)()
