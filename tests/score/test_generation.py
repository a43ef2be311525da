"""Batched greedy decoding against transformers' own `generate`, prompt by prompt."""

import random
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.score.generation import GreedyDecoder, Prompt


@pytest.fixture(scope="module")
def pieces() -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(DEMO_MODELS / "maths")


def prompts(tokenizer: Any, stops: tuple[str, ...]) -> list[Prompt]:
    rng = random.Random(1)
    texts = [
        f"Solve: {name} has {rng.randint(10, 60)} {thing} and gets {rng.randint(10, 39)} more. =>"
        for name in ("Tom", "Emma") for thing in ("coins", "cups", "apples")
    ] + ["Sort: 3 1 2 5 =>", "Max: 9 1 =>"]  # fmt: skip
    return [Prompt(tuple(tokenizer(text)["input_ids"]), rng.choice([4, 12]), stops) for text in texts]


@pytest.mark.parametrize("budget", [40, 100_000])
def test_texts_are_those_of_generate(budget: int, pieces: tuple[Any, Any]) -> None:
    model, tokenizer = pieces
    asked = prompts(tokenizer, ())
    found = GreedyDecoder(model, tokenizer).run(asked, budget)
    for prompt, text in zip(asked, found, strict=True):
        inputs = torch.tensor([prompt.tokens])
        made = model.generate(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=prompt.most, do_sample=False
        )
        assert text == tokenizer.decode(made[0, len(prompt.tokens) :], skip_special_tokens=True)


@pytest.mark.parametrize("stops", [("=",), ("7", "+4"), ("は",)])
def test_stop_strings_end_a_row_early_and_lose_nothing(stops: tuple[str, ...], pieces: tuple[Any, Any]) -> None:
    model, tokenizer = pieces
    whole = GreedyDecoder(model, tokenizer).run(prompts(tokenizer, ()), 1000)
    cut = GreedyDecoder(model, tokenizer).run(prompts(tokenizer, stops), 1000)
    stopped = 0
    for full, short in zip(whole, cut, strict=True):
        assert full.startswith(short)
        ends = [full.index(stop) + len(stop) for stop in stops if stop in full]
        if ends:
            stopped += 1
            assert len(short) >= min(ends)
        else:
            assert short == full
    assert stopped or stops == ("は",)


def test_nothing_of_one_call_is_left_for_the_next(pieces: tuple[Any, Any]) -> None:
    """The cache does not outlive a change of the weights."""
    model, tokenizer = pieces
    decoder = GreedyDecoder(model, tokenizer)
    before = decoder.run(prompts(tokenizer, ()), 1000)
    with torch.no_grad():
        kept = model.model.norm.weight.clone()
        model.model.norm.weight.mul_(-1)
        assert decoder.run(prompts(tokenizer, ()), 1000) != before
        model.model.norm.weight.copy_(kept)
    assert decoder.run(prompts(tokenizer, ()), 1000) == before
