"""Shared beginnings: the same numbers, fewer tokens."""

import random
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.rows import Request, Row
from evomerge.score.rows import visible as see


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32).eval()


def requests(rng: random.Random, count: int, shots: int, options: int) -> list[Request]:
    """Few-shot multiple choice: one long beginning for all, contexts of their own, several answers each."""
    beginning = tuple(rng.randrange(3, 500) for _ in range(shots))
    found = []
    for _ in range(count):
        context = beginning + tuple(rng.randrange(3, 500) for _ in range(rng.randint(1, 8)))
        for _ in range(options):
            found.append(Request(context, tuple(rng.randrange(3, 500) for _ in range(rng.randint(1, 5)))))
    return found


@pytest.mark.parametrize(("shots", "options"), [(0, 1), (0, 4), (40, 1), (40, 4), (118, 3)])
@pytest.mark.parametrize("budget", [64, 100_000])
def test_sharing_changes_nothing(shots: int, options: int, budget: int, model: Any) -> None:
    asked = requests(random.Random(shots), 9, shots, options)
    together, alone = (LikelihoodPlan(asked, model, 128, budget, share=share) for share in (True, False))
    (one, one_greedy), (other, other_greedy) = together.run(model), alone.run(model)
    assert one == pytest.approx(other, abs=2e-5)
    assert one_greedy == other_greedy
    if shots == 40:
        assert together.tokens < 0.5 * alone.tokens


def test_what_is_too_long_is_cut_from_the_left(model: Any) -> None:
    long = Request(tuple(range(3, 203)), (7, 8))
    cut = Request(tuple(range(3, 203))[-127:], (7, 8))
    totals, _ = LikelihoodPlan([long, cut], model, 128, 1000, share=True).run(model)
    assert totals[0] == pytest.approx(totals[1], abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12))
def test_a_row_is_the_tree_of_its_sequences(sequences: list[list[int]]) -> None:
    row = Row()
    sequences = sorted(sequences)
    for owner, tokens in enumerate(sequences):
        row.add(tokens, tokens[-1:], owner)
    nodes = {tuple(s[: i + 1]) for s in sequences for i in range(len(s))}
    assert len(row.tokens) == len(nodes)
    visible = see(torch.tensor([row.ends()]))[0]
    for place, tokens in zip([place for place, _, _ in row.reads], sequences, strict=True):
        seen = [row.tokens[i] for i in range(len(row.tokens)) if visible[place, i]]
        assert seen == tokens
        assert row.depths[place] == len(tokens) - 1
    assert row.branches == (len(nodes) > max(len(s) for s in sequences))
