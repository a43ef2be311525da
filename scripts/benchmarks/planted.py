"""Zoos whose best merge is known: tiny random models, and a task whose right answers are those of one hidden merge."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(120)]
LAYERS = 6
SHAPE = {
    "vocab_size": len(WORDS) + 4,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXTRA: dict[str, dict[str, int]] = {
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 16},
    "gpt_neox": {},
    "llama": {},
    "olmo2": {},
}
"""Families, and what their configs have beside the shape."""
FAR = 4.0
"""Matrices are multiplied by this: random models are nearly linear in their weights otherwise."""
APART = 0.7
"""Standard deviation of a task vector, in that of the base's tensor."""
QUESTION, OPTION, OPTIONS = 8, 3, 4
"""Words of a question and of each of its options."""
SEARCH, CONFIRM = 200, 600
TASK = """task: planted
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
Weights = Mapping[str, Mapping[str, float]]
"""A weight for each tensor in a layer, by expert."""


class Zoo(NamedTuple):
    """A base of this family, and what is planted over it.

    Of the labels a share of `noise` is drawn anew; the hidden merge answers the rest as the labels do. Its weights are
    those of layers, as are those that are searched for, or else each tensor has one of its own (`finely`).
    """

    family: str
    seed: int
    noise: float = 0.0
    finely: bool = False


def plant(folder: Path, planted: Zoo) -> dict[str, Any]:
    """Write base, two experts and the task to `folder`; a run file's content over them, without an optimiser."""
    zoo = _Models(planted)
    for name in ("base", "a", "b"):
        zoo.merged({expert: dict.fromkeys(zoo.inner, float(name == expert)) for expert in "ab"}).save_pretrained(
            folder / name
        )
        zoo.tokenizer.save_pretrained(folder / name)
    rng = torch.Generator().manual_seed(planted.seed + 1)
    items: list[dict[str, Any]] = [
        {"q": _words(QUESTION, rng), "options": [_words(OPTION, rng) for _ in range(OPTIONS)]}
        for _ in range(SEARCH + CONFIRM)
    ]
    for item, label in zip(items, zoo.answers(zoo.hidden, items), strict=True):
        other = int(torch.randint(OPTIONS, (), generator=rng))
        item["label"] = other if float(torch.rand((), generator=rng)) < planted.noise else label
    (folder / "tasks").mkdir()
    data = folder / "tasks" / "planted.jsonl"
    data.write_text("\n".join(json.dumps(item) for item in items))
    (folder / "tasks" / "planted.yaml").write_text(TASK.format(data=data))
    return {
        "models": {"base": str(folder / "base"), "experts": {name: str(folder / name) for name in "ab"}},
        "space": {
            "kind": "blend",
            "operator": "task_arithmetic",
            "groups": "layer",
            "outer": "base",
            "weight": [0, 1.5],
        },
        "fitness": {
            "include": [str(folder / "tasks")],
            "objectives": {"planted": {"task": "planted", "metric": "acc"}},
            "items": {"search": SEARCH, "confirm": CONFIRM},
        },
        "device": "cpu",
    }


class _Models:
    """A random base, two random task vectors, and a hidden weight for each of them in each layer, or each tensor."""

    def __init__(self, planted: Zoo) -> None:
        self.tokenizer = _tokenizer()
        torch.manual_seed(planted.seed)
        config = AutoConfig.for_model(planted.family, **SHAPE, **EXTRA[planted.family])
        self._model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        rng = torch.Generator().manual_seed(planted.seed)
        with torch.no_grad():
            self._base = {
                name: (tensor * FAR if tensor.ndim == 2 else tensor).clone()
                for name, tensor in self._model.named_parameters()
            }
        self._vectors = {name: {key: _vector(tensor, rng) for key, tensor in self._base.items()} for name in "ab"}
        self.inner = {key: int(part) for key in self._base for part in key.split(".") if part.isdigit()}
        self.hidden = {name: self._drawn(planted, rng) for name in "ab"}

    def _drawn(self, planted: Zoo, rng: torch.Generator) -> dict[str, float]:
        values = (torch.rand(len(self.inner) if planted.finely else LAYERS, generator=rng) * 1.4 + 0.05).tolist()
        return {key: values[i if planted.finely else layer] for i, (key, layer) in enumerate(self.inner.items())}

    def merged(self, weights: Weights) -> Any:
        """The model with these weights; it is the same one every time."""
        with torch.no_grad():
            for key, tensor in self._model.named_parameters():
                found = self._base[key].clone()
                for name, vectors in self._vectors.items():
                    found += weights[name].get(key, 0) * vectors[key]
                tensor.copy_(found)
        return self._model

    @torch.no_grad()
    def answers(self, weights: Weights, items: Sequence[Mapping[str, Any]]) -> list[int]:
        """The options that a merge thinks most likely."""
        model, found = self.merged(weights), []
        for item in items:
            ids = torch.tensor([self.tokenizer(f"{item['q']} {option}")["input_ids"] for option in item["options"]])
            chances = model(ids).logits.float().log_softmax(-1)[:, QUESTION - 1 : -1]
            scores = chances.gather(-1, ids[:, QUESTION:, None])[..., 0].sum(-1)
            found.append(int(scores.argmax()))
        return found


def _vector(tensor: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(tensor.shape, generator=rng)
    return drawn * tensor.std() * APART if tensor.ndim == 2 else torch.zeros_like(tensor)


def _words(count: int, rng: torch.Generator) -> str:
    return " ".join(WORDS[int(place)] for place in torch.randint(len(WORDS), (count,), generator=rng))


def _tokenizer() -> Any:
    words = {word: place for place, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
