"""A checkpoint whose layers come from the layers of another: its config, and its names on disk."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

NUMBERS = ("mlp_only_layers",)
"""Lists that name layers by number."""
NOT_BY_LAYER = ("architectures", "keys_to_ignore_at_inference", *NUMBERS)
DEPTH = "num_hidden_layers"


def moved_config(plain: Mapping[str, Any], config: PretrainedConfig, origins: Sequence[int]) -> dict[str, Any]:
    """The config.json `plain`, which transformers reads as `config`, for a model whose layers come from `origins`.

    What it says layer by layer goes with the layers, and is written out where the class has a rule for it.
    """
    moved = copy.deepcopy(dict(plain))
    text = config.get_text_config()
    if tuple(origins) == tuple(range(text.num_hidden_layers)):
        return moved
    inner = text_part(moved, config)
    depth = text.num_hidden_layers
    # Where the file says it, in the file's words: a class may know a list under another name.
    said = {key: value for key, value in inner.items() if value is not None}
    for key, values in {**text.to_dict(), **said}.items():
        if _by_layer(key, values, depth):
            inner[key] = [values[origin] for origin in origins]
        elif key in NUMBERS and values:
            inner[key] = [place for place, origin in enumerate(origins) if origin in values]
    own = text.attribute_map.get(DEPTH, DEPTH)
    for key in {own, *({DEPTH} & inner.keys())}:
        inner[key] = len(origins)
    return moved


def text_part(plain: dict[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """The part of a config.json, to be written to, that describes the language model."""
    text = config.get_text_config()
    key = next((key for key, value in vars(config).items() if value is text), None)
    part: dict[str, Any] = plain if key is None else plain.setdefault(key, {})
    return part


def renumbered(name: str, layer: int) -> str:
    """A tensor's name in another layer: the first number in it is the layer's."""
    return re.sub(r"(^|(?<=\.))\d+(?=\.)", str(layer), name, count=1)


def _by_layer(key: str, values: object, depth: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == depth and key not in NOT_BY_LAYER and "token" not in key
