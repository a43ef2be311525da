"""Whether two configs make one computation, as transformers reads them: whatever else they say is no difference."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig

from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.read import TIED
from evomerge.checkpoint.side import CONFIG
from evomerge.errors import SpecError

# Keys of a config class that leave what the model computes alone: they name, or steer training, decoding or output.
BENIGN = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "max_window_layers",  # `layer_types` says what came of it.
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "quantization_config",  # Where it says something the folder was refused.
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "transformers_weights",
    "use_cache",
    TIED,  # What is in the files decides.
}
DROPOUTS = ("dropout", "_pdrop", "dropout_prob")
WINDOW = "max_position_embeddings"
ROPE = "rope_parameters"
SAME_ANYWHERE = {"default", "linear", "llama3", "proportional"}
"""Kinds of rotary embeddings that turn a position alike whatever the window is."""


def same_architecture(first: Checkpoint, config: PretrainedConfig, other: Checkpoint, its: PretrainedConfig) -> None:
    """See that both configs make the same computation; what a folder leaves out has the class's default.

    Raises:
        SpecError: a key that matters differs.
    """
    for key, mine, theirs in _differences(config, its):
        raise SpecError(
            f"{other.at(CONFIG)}: {key} is {theirs!r}, in {first.label} it is {mine!r};"
            " only models of one architecture can be merged"
        )


def _differences(mine: PretrainedConfig, theirs: PretrainedConfig, above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys that matter with what each config says, those of configs within it too."""
    if mine.model_type != theirs.model_type:
        yield f"{above}model_type", mine.model_type, theirs.model_type
        return
    left, right = mine.to_dict(), theirs.to_dict()
    for key in sorted(_known(mine)):
        inner = getattr(mine, key, None), getattr(theirs, key, None)
        if isinstance(inner[0], PretrainedConfig) and isinstance(inner[1], PretrainedConfig):
            yield from _differences(inner[0], inner[1], f"{above}{key}.")
        elif left.get(key) != right.get(key) and not _same_window(key, mine, theirs):
            yield f"{above}{key}", left.get(key), right.get(key)


def _known(config: PretrainedConfig) -> set[str]:
    """Keys of the class that matter. What it does not know, as trainers leave behind, changes nothing."""
    try:
        keys = set(type(config)().to_dict())
    except Exception:  # noqa: BLE001  A class that cannot be built from nothing knows what this one holds.
        keys = set(config.to_dict())
    return {key for key in keys if key not in BENIGN and not key.endswith(DROPOUTS)}


def _same_window(key: str, mine: PretrainedConfig, theirs: PretrainedConfig) -> bool:
    """Whether a difference in this key is one of how many positions were trained on, and no more."""
    if key != WINDOW:
        return False
    kinds = {kind for config in (mine, theirs) for kind in _rope_types(getattr(config, ROPE, None))}
    return bool(kinds) and kinds <= SAME_ANYWHERE


def _rope_types(parameters: object) -> Iterator[str]:
    """Kinds of rotary embeddings, of every kind of layer that has one of its own."""
    if isinstance(parameters, Mapping):
        if "rope_type" in parameters:
            yield str(parameters["rope_type"])
        for value in parameters.values():
            yield from _rope_types(value)
