"""Train the demo's base and experts, and write its tasks.

    python scripts/make_demo_models.py

writes evomerge/demo/models/{base,maths,japanese,lists} and fitness/demo/, and prints what each model can do. Some
five minutes on one core; the same machine and versions give the same bytes.
"""

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from demo_skills import KANJI, Item, blend, test_items, training_items
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "evomerge/demo/models"
TASKS = ROOT / "fitness/demo"
PAD, BOS, EOS = 0, 1, 2
BATCH = 96
TEST_ITEMS = {"math_ja": 1400, "lists": 1000}
TASK = """\
# {title}
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {name}.jsonl
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}</s>"    # the end of the answer is part of it
metric_list:
  - metric: acc                      # whether greedy decoding says exactly this
    aggregation: mean
    higher_is_better: true
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
metadata:
  version: 1.0
"""
TITLES = {
    "math_ja": "Japanese word problems: the skill that none of the demo's models has.",
    "lists": "Sort, reverse or find the largest of four or five digits.",
}


@dataclass(frozen=True)
class Training:
    """How one model is trained: examples, Muon's learning rate, share of the base's mix, seed."""

    examples: int
    rate: float
    replay: float
    seed: int


PLAN = {
    "base": Training(100_000, 0.02, 0.0, 4),
    "maths": Training(60_000, 0.006, 0.35, 11),
    "japanese": Training(12_000, 0.008, 0.12, 12),
    "lists": Training(40_000, 0.008, 0.20, 13),
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of some 500 tokens; digits, kanji numerals and operators stand alone."""
    tokenizer = Tokenizer(models.BPE())
    alone = Regex(f"[{KANJI}十をはが個]|\\p{{N}}|、|。|？|[-+=]")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(alone, "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    texts = [KANJI * 50]
    for name in PLAN:
        texts += [item.prompt + item.answer for item in training_items(blend(name, 0.0), 4000, 7)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )


Encoded = tuple[list[int], list[int]]


def encode(tokenizer: PreTrainedTokenizerFast, items: Sequence[Item]) -> list[Encoded]:
    """Tokens of prompts and answers. An answer that ends in `=` is open: what follows is neither trained nor scored."""
    prompts = tokenizer([item.prompt for item in items])["input_ids"]
    answers = tokenizer([item.answer for item in items], add_special_tokens=False)["input_ids"]
    pairs = zip(prompts, answers, items, strict=True)
    return [(prompt, answer if item.answer.endswith("=") else [*answer, EOS]) for prompt, answer, item in pairs]


def collate(batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Inputs and targets, both (items, length); -100 where nothing is asked."""
    length = max(len(prompt) + len(answer) for prompt, answer in batch) - 1
    inputs = torch.zeros(len(batch), length, dtype=torch.long)
    targets = torch.full((len(batch), length), -100)
    for i, (prompt, answer) in enumerate(batch):
        whole = prompt + answer
        inputs[i, : len(whole) - 1] = torch.tensor(whole[:-1])
        targets[i, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
    return inputs, targets


def batches(encoded: Sequence[Encoded], rng: random.Random) -> Iterator[list[Encoded]]:
    """Batches of like length, in random order within a stretch."""
    stretch = BATCH * 16
    for start in range(0, len(encoded), stretch):
        near = sorted(encoded[start : start + stretch], key=lambda pair: len(pair[0]) + len(pair[1]) + rng.random())
        cut = [near[i : i + BATCH] for i in range(0, len(near), BATCH)]
        rng.shuffle(cut)
        yield from cut


class Muon:
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), in fp32, equal shapes together."""

    def __init__(self, parameters: Sequence[nn.Parameter], momentum: float = 0.95, decay: float = 0.01) -> None:
        self.momentum, self.decay = momentum, decay
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            self.groups.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
        self.buffers = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix."""
        for shape, group in self.groups.items():
            grads = torch.stack([_upright(p.grad, shape) for p in group if p.grad is not None])
            buffer = self.buffers[shape]
            buffer.lerp_(grads, 1 - self.momentum)
            x = grads.lerp_(buffer, self.momentum)
            x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
            for _ in range(5):
                a = torch.bmm(x, x.transpose(1, 2))
                x = 3.4445 * x + torch.bmm(-4.7750 * a + 2.0315 * torch.bmm(a, a), x)
            for parameter, update in zip(group, x, strict=True):
                moved = _upright(update, tuple(parameter.shape))
                scale = max(1, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - rate * self.decay).add_(moved, alpha=-rate * scale)


def _upright(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    return matrix if tuple(matrix.shape) == shape else matrix.T


def train(model: LlamaForCausalLM, encoded: Sequence[Encoded], how: Training) -> None:
    """One pass; loss on answers only, every item alike; warm-up and cosine."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=0.0, weight_decay=0.0, betas=(0.9, 0.98))
    steps = math.ceil(len(encoded) / BATCH)
    model.train()
    for step, batch in enumerate(batches(encoded, random.Random(how.seed))):
        rate = how.rate * _schedule(step, steps)
        inputs, targets = collate(batch)
        asked = targets != -100
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[asked]
        losses = F.cross_entropy(model.lm_head(hidden), targets[asked], reduction="none")
        share = 1 / asked.sum(1)[asked.nonzero()[:, 0]]
        (losses * share).sum().div(len(batch)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.param_groups[0]["lr"] = 0.15 * rate
        adam.step()
        muon.step(rate)
        model.zero_grad(set_to_none=True)
    model.eval()


def _schedule(step: int, steps: int, warm: float = 0.05) -> float:
    done = step / steps
    if done < warm:
        return min(1.0, (done + 1 / steps) / warm)
    return max(0.02, 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))))


@torch.no_grad()
def accuracy(model: LlamaForCausalLM, encoded: Sequence[Encoded]) -> float:
    """Share of answers that greedy decoding gets exactly right."""
    right = 0
    for start in range(0, len(encoded), 256):
        inputs, targets = collate(encoded[start : start + 256])
        guess = model(input_ids=inputs, use_cache=False).logits.argmax(-1)
        right += int(((guess == targets) | (targets == -100)).all(1).sum())
    return right / len(encoded)


def write_tasks() -> None:
    """The two tasks of the demo, with items that no model was trained on."""
    TASKS.mkdir(parents=True, exist_ok=True)
    for name, count in TEST_ITEMS.items():
        rows = [{"prompt": i.prompt, "answer": i.answer, "group": i.group} for i in test_items(name, count)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (TASKS / f"{name}.jsonl").write_text(lines)
        (TASKS / f"{name}.yaml").write_text(TASK.format(name=name, title=TITLES[name]))


def shape(vocabulary: int) -> LlamaConfig:
    """A Llama of half a million parameters."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=80,
        intermediate_size=240,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def main() -> None:
    """Train and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, help="where to write the models")
    out = parser.parse_args().models
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    tokenizer = build_tokenizer()
    tests = {
        name: encode(tokenizer, test_items(name, 300)) for name in ("math_ja", "math_en", "formula_ja", "calc", "lists")
    }
    config = shape(len(tokenizer))
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    weights: dict[str, Tensor] = {}
    for name, how in PLAN.items():
        started = time.process_time()
        model = base
        if name != "base":
            model = LlamaForCausalLM(config)
            model.load_state_dict(weights)
        train(model, encode(tokenizer, training_items(blend(name, how.replay), how.examples, how.seed)), how)
        if name == "base":
            weights = {key: value.clone() for key, value in model.state_dict().items()}
        scores = "  ".join(f"{skill} {accuracy(model, items):.3f}" for skill, items in tests.items())
        print(f"{name:9} {time.process_time() - started:4.0f} cpu-s  {scores}", flush=True)
        shutil.rmtree(out / name, ignore_errors=True)
        tokenizer.save_pretrained(out / name)
        model.to(torch.float16).save_pretrained(out / name)
        model.to(torch.float32)
    write_tasks()


if __name__ == "__main__":
    main()
