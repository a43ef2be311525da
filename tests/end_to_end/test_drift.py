"""Drift on plain text: measured of finalists and baselines, shown everywhere, and of old runs not at all."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS, Typed, refused, small_fitness
from transformers import AutoModelForCausalLM

from evomerge.evaluate import EvaluatorFactory
from evomerge.fitness import Fitness
from evomerge.items import TEXT
from evomerge.spec import GuardSpec, Models
from evomerge.trial import Draw

Cli = Callable[..., Typed]


def test_drift_is_shown_of_finalists_and_baselines(finished: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    shown = json.loads(cli("show", finished["one"], "--json").out)
    assert shown["text"] == "MMLU's chains of thought"
    by_name = {row["name"]: row["drift"] for row in shown["baselines"]}
    uniform, maths = by_name["uniform average"], by_name["maths"]
    assert uniform["change"] is None
    value, change = maths["perplexity"][0], maths["change"]
    assert value == pytest.approx(uniform["perplexity"][0] * (1 + change[0]))
    assert 0 < change[1] < maths["perplexity"][1] / value, "pieces are compared one by one"
    assert all(row["drift"]["perplexity"][0] > 1 for row in shown["front"])
    assert "perplexity" in cli("show", finished["one"]).out
    assert cli("report", finished["one"], "--out", tmp_path / "page.html").status == 0
    assert f"{value:.4g} ({change[0]:+.1%})".replace("%", " %") in (tmp_path / "page.html").read_text()


@torch.no_grad()
def test_losses_are_those_of_stock_transformers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"Anna has {i} books and buys {i % 7} more; nobody knows why." for i in range(220)))
    models = Models(base=None, experts={"maths": str(DEMO_MODELS / "maths")})
    fitness, guard = Fitness.model_validate_json(json.dumps(small_fitness())), GuardSpec(text=str(path))
    factory = EvaluatorFactory(models, fitness, 0, guard=guard)
    evaluator = factory.build()
    text, prose = evaluator.table.text, evaluator._prose
    assert text is not None
    assert prose is not None
    parts = [set(text.confirm), set(text.held), set(text.search) - set(text.held)]
    assert len(parts[0]) == len(parts[1]) == 8
    assert len(parts[2]) in (14, 15, 16)
    assert not parts[0] & set(text.search)
    draw = Draw(pool="confirm", places={TEXT: tuple(range(len(text.confirm)))})
    losses = prose.marks(draw)[TEXT]["loss"]
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32)
    for loss, request in zip(losses, prose.requests(draw), strict=True):
        tokens = torch.tensor([[*request.context, *request.continuation]])
        begun = len(request.context)
        logs = model(tokens).logits.log_softmax(-1)[0, begun - 1 : -1]
        wanted = -logs.gather(1, tokens[0, begun:, None]).mean()
        assert loss == pytest.approx(float(wanted), abs=2e-3)
        assert math.isfinite(loss)


def test_a_guard_that_cannot_be_is_refused(run_file: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short to say anything.")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe" * 9000)
    cases = [
        ({"text": "none.txt"}, ("guard.text", "none.txt cannot be read")),
        ({"text": "short.txt"}, ("guard.text", "gives 0 pieces of 64 tokens", "6,144 characters")),
        ({"text": "bytes.txt"}, ("guard.text", "not UTF-8")),
        ({"text": "short.txt", "share": 0}, ("guard.share", "greater than 0")),
    ]
    for guard, words in cases:
        refused(cli("search", run_file(guard=guard), "--out", tmp_path / "RUN"), *words)
