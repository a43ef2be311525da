"""When prompts that begin alike may share their beginning, and when not."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from families import make_family
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.responses import Responder
from evomerge.score.rows import Request


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Responder:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return Responder(model, AutoTokenizer.from_pretrained(folder))


def choices(shots: int, context: int, seed: int = 0) -> list[Request]:
    """Multiple choice over contexts of their own behind one beginning."""
    rng = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 500) for _ in range(count))

    beginning = tokens(shots)
    contexts = [beginning + tokens(context) for _ in range(5)]
    return [Request(context, tokens(3)) for context in contexts for _ in range(4)]


def alone(responder: Responder, requests: list[Request]) -> Any:
    found = LikelihoodPlan(requests, responder.model, responder.lm.max_length, 1000, share=False).run(responder.model)
    return pytest.approx(found[0], abs=1e-4)


def test_items_longer_than_the_window_are_not_shared_though_earlier_ones_were(tmp_path: Path) -> None:
    responder = opened(make_family("mistral", tmp_path, ("base",), sliding_window=16)["base"])
    search, confirm = choices(0, 8), choices(24, 8)
    short = responder.likelihood_plan(search)
    assert short.together
    assert short.run(responder.model)[0] == alone(responder, search)
    assert not responder.notes
    long = responder.likelihood_plan(confirm)
    assert not long.together
    assert long.run(responder.model)[0] == alone(responder, confirm)
    assert responder.notes == {"prompts that begin alike are not shared: some are longer than the attention window"}
    assert responder.likelihood_plan(search).together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [{"attention_mask"}, {"attention_mask", "position_ids"}])
def test_a_class_that_ignores_masks_is_found_out_by_the_first_plan_that_shares(
    ignored: set[str], dtype: torch.dtype
) -> None:
    responder = opened(DEMO_MODELS / "maths", dtype)
    plain = responder.model.forward
    responder.model.forward = lambda *asked, **given: plain(
        *asked, **{k: v for k, v in given.items() if k not in ignored}
    )
    nothing_alike = [Request((3 + i,), (40 + i,)) for i in range(8)]
    assert not responder.likelihood_plan(nothing_alike).together
    assert not responder.notes
    assert not responder.likelihood_plan(choices(20, 6)).together
    assert responder.notes == {"prompts that begin alike are not shared: LlamaForCausalLM does not take our masks"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_class_that_takes_masks_shares(dtype: torch.dtype) -> None:
    responder = opened(DEMO_MODELS / "maths", dtype)
    assert responder.likelihood_plan(choices(20, 6)).together
    assert not responder.notes
