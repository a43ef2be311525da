"""Fine-tuning as people do it, in full and by LoRA: what merges that are learned from labels compete with."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

Pair = tuple[str, str]
"""A prompt and its answer."""
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVERY = 5
"""Steps between two looks at the items held out."""
PATIENCE = 5
"""Looks without a new best one after which a rate is given up."""
LAST = 0.1
"""The rate falls in a line to this share of it."""
METHODS: Mapping[str, tuple[int | None, tuple[float, ...]]] = {
    "full": (None, (3e-4, 1e-3, 3e-3)),
    "LoRA, rank 8": (8, (1e-3, 3e-3, 1e-2)),
    "LoRA, rank 16": (16, (1e-3, 3e-3, 1e-2)),
}
"""Ranks, and the rates that are tried."""


class Examples(NamedTuple):
    """Tokens of items (items, length), which of them are there, and which are the answer's."""

    ids: Tensor
    there: Tensor
    wanted: Tensor

    def at(self, places: Tensor | slice) -> "Examples":
        """Some of them."""
        return Examples(*(each[places] for each in self))


class Plan(NamedTuple):
    """Steps on a batch of so many items each, at a rate that falls; `seed` draws them."""

    steps: int
    batch: int
    seed: int


def encoded(tokenizer: Any, items: Sequence[Pair], end: str) -> Examples:
    """Items as tokens, padded at the end."""
    prompts = [tokenizer(prompt).input_ids for prompt, _ in items]
    wholes = [tokenizer(prompt + answer + end).input_ids for prompt, answer in items]
    ids = torch.zeros(len(items), max(map(len, wholes)), dtype=torch.long)
    there, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
        ids[row, : len(whole)] = torch.tensor(whole)
        there[row, : len(whole)] = 1
        wanted[row, len(prompt) : len(whole)] = True
    return Examples(ids, there, wanted)


def answers(model: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
    """Of each item the log-probability of its answer, and whether greedy decoding says exactly that: (items,) both."""
    logits = model(examples.ids, attention_mask=examples.there).logits[:, :-1].log_softmax(-1)
    target, wanted = examples.ids[:, 1:], examples.wanted[:, 1:]
    logs = logits.gather(-1, target[..., None])[..., 0]
    right = (logits.argmax(-1) == target) | ~wanted
    return (logs * wanted).sum(-1), right.all(-1)


def measured(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """Mean loss of the answers, and the share that greedy decoding says."""
    with torch.no_grad():
        each = [answers(model, examples.at(slice(i, i + 240))) for i in range(0, len(examples.ids), 240)]
    return -float(torch.cat([logs for logs, _ in each]).mean()), float(torch.cat([ok for _, ok in each]).float().mean())


def tuned(start: nn.Module, method: str, learnt: Examples, held: Examples, plan: Plan) -> nn.Module:
    """The start fine-tuned by the best of three rates: each at the iterate that loses least on the items held out."""
    rank, rates = METHODS[method]
    found = [_descended(start, rank, rate, learnt, held, plan) for rate in rates]
    return min(found, key=lambda each: each[0])[1]


def _descended(
    start: nn.Module, rank: int | None, rate: float, learnt: Examples, held: Examples, plan: Plan
) -> tuple[float, nn.Module]:
    torch.manual_seed(plan.seed)
    model: Any = copy.deepcopy(start)
    if rank is not None:
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MATRICES))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, LAST, plan.steps)
    best, kept, at = measured(model, held)[0], _copies(weights), 0
    for step, places in zip(range(plan.steps), _batches(len(learnt.ids), plan), strict=False):
        optimizer.zero_grad()
        (-answers(model, learnt.at(places))[0].mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        falling.step()
        if (step + 1) % EVERY == 0:
            if (loss := measured(model, held)[0]) < best:
                best, kept, at = loss, _copies(weights), step
            elif step - at >= PATIENCE * EVERY:
                break
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    return best, model.merge_and_unload() if rank is not None else model


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


def _batches(count: int, plan: Plan) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(plan.seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from (order[i : i + plan.batch] for i in range(0, count - plan.batch + 1, plan.batch))
