"""Fine-tune the base on one benchmark with LoRA, and merge the adapter into a full model folder."""

import math
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tasks import Item, read_items
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

RANK, ALPHA = 8, 16
RATE, FLOOR, WARM = 1e-3, 0.05, 10
"""AdamW's learning rate, the share of it that is left at the end, and steps of warm-up."""
BATCH = 16
STRETCH = 8 * BATCH
"""Within so many examples they are ordered by length, so that little is padded."""
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Example = tuple[list[int], list[int]]
"""Tokens of a prompt and of its answer."""


@dataclass(frozen=True)
class Job:
    """An expert to be trained: on which items, from which base, where to, and how much of it."""

    name: str
    items: Path
    base: Path
    out: Path
    examples: int
    seed: int


def train_expert(job: Job) -> str:
    """Train on one core and write the merged model; returns a line about it."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # PEFT uses its older names.
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    rng = random.Random(job.seed)
    examples = encode(tokenizer, rng.sample(read_items(job.items), job.examples))
    model = LlamaForCausalLM.from_pretrained(job.base, dtype=torch.float32)
    adapted: Any = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MATRICES))
    losses = _fit(model, [p for p in adapted.parameters() if p.requires_grad], list(batches(examples, rng)), job.name)
    # The base is bf16 held in fp32, so adding the change in fp32 leaves one rounding, the one to bf16 at the end.
    merged = adapted.merge_and_unload()
    unfinished = job.out.with_name(f"{job.out.name}.unfinished")
    tokenizer.save_pretrained(unfinished)
    merged.to(torch.bfloat16).save_pretrained(unfinished)
    unfinished.rename(job.out)
    last = sum(losses[-20:]) / len(losses[-20:])
    return f"{job.name}: {job.examples} examples, loss {last:.3f} at the end, {time.monotonic() - started:.0f} s"


def encode(tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> list[Example]:
    """Prompts and right answers as tokens, cut as lm-eval cuts them; an answer ends with the end of a turn."""
    prompts = tokenizer([item.prompt for item in items])["input_ids"]
    wholes = tokenizer([f"{item.prompt} {item.choices[item.gold]}" for item in items])["input_ids"]
    end = tokenizer.eos_token_id
    return [(prompt, [*whole[len(prompt) :], end]) for prompt, whole in zip(prompts, wholes, strict=True)]


def batches(examples: Sequence[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Batches of like length, in random order within a stretch."""
    for start in range(0, len(examples), STRETCH):
        near = sorted(examples[start : start + STRETCH], key=lambda pair: len(pair[0]) + len(pair[1]))
        cut = [near[i : i + BATCH] for i in range(0, len(near), BATCH)]
        rng.shuffle(cut)
        yield from cut


def _fit(
    model: LlamaForCausalLM, parameters: Sequence[nn.Parameter], plan: Sequence[Sequence[Example]], name: str
) -> list[float]:
    """One pass of AdamW over the batches; the loss of each."""
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    started = time.monotonic()
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(plan):
        optimizer.param_groups[0]["lr"] = RATE * _schedule(step, len(plan))
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 40 == 0:
            recent = sum(losses[-40:]) / 40
            spent = time.monotonic() - started
            print(f"{name}: batch {step + 1} of {len(plan)}, loss {recent:.3f}, {spent:.0f} s", flush=True)
    return losses


def _loss(model: LlamaForCausalLM, batch: Sequence[Example]) -> Tensor:
    """Mean loss of the answers' tokens; logits are made for those alone, they are a third of the work."""
    length = max(len(prompt) + len(answer) for prompt, answer in batch) - 1
    tokens = torch.zeros(len(batch), length, dtype=torch.long)  # Padded on the right, which nothing looks at.
    targets = torch.full((len(batch), length), -1)
    for row, (prompt, answer) in enumerate(batch):
        whole = prompt + answer
        tokens[row, : len(whole) - 1] = torch.tensor(whole[:-1])
        targets[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
    asked = targets >= 0
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden[asked]), targets[asked])


def _schedule(step: int, steps: int) -> float:
    """Warm-up, then cosine, as a share of the learning rate."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / WARM) * (FLOOR + (1 - FLOOR) * cosine)
