"""A model that computes no finite numbers earns no marks, whatever an arg-max makes of NaNs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from lm_tasks import write_tasks
from transformers import AutoModelForCausalLM

from evomerge.fitness import Fitness, Items, Objective
from evomerge.score import ScoreFailure, TaskScorer, open_banks
from evomerge.score.budget import token_bytes
from evomerge.trial import Draw

BEAMS = {"num_beams": 2, "max_gen_toks": 4, "until": ["\n"], "do_sample": False}


def scorer(folder: Path, model: Any, **objective: Any) -> TaskScorer:
    fitness = Fitness(
        include=(str(folder),), objectives={"it": Objective(**objective)}, items=Items(search=16, confirm=4)
    )
    return TaskScorer(fitness, open_banks(fitness), model, DEMO_MODELS / "maths")


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32).eval()


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """The first option is always the right one, as where documents are not shuffled."""
    folder = write_tasks(tmp_path)
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for row in rows:
        row["options"].insert(0, row["options"].pop(row["gold"]))
        row["gold"] = 0
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "objective",
    [{"task": name} for name in ("choices", "mutual", "exact", "rolling", "written", "long")]
    + [{"task": "long", "generation": BEAMS}],
)
def test_a_poisoned_model_is_a_failure(objective: dict[str, Any], poison: float, tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, **objective)
    whole = one.marks(Draw(pool="search"))
    kept = model.model.norm.weight.data.clone()
    model.model.norm.weight.data[3] = poison
    with pytest.raises(ScoreFailure, match="computes no finite numbers"):
        one.marks(Draw(pool="search"))
    model.model.norm.weight.data.copy_(kept)
    assert one.marks(Draw(pool="search")) == whole


def test_a_draw_prepared_over_a_poisoned_model_is_not_spoiled_for_the_next(tasks: Path, model: Any) -> None:
    kept = model.model.norm.weight.data.clone()
    one = scorer(tasks, model, task="choices")
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ScoreFailure):
        one.marks(Draw(pool="confirm"))
    model.model.norm.weight.data.copy_(kept)
    one.marks(Draw(pool="confirm"))
    assert not one.notes


@pytest.mark.parametrize("task", ["choices", "written"])
def test_where_memory_is_too_small_passes_become_smaller(task: str, tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, task=task)
    whole = {metric: pytest.approx(marks, abs=1e-4) for metric, marks in one.marks(Draw(pool="search"))[task].items()}
    plain, tried = model.forward, []

    def small(**given: Any) -> Any:
        seen = given.get("attention_mask")
        rows, length = given["input_ids"].shape
        tried.append(rows * (length if seen is None else seen.shape[-1]))
        if tried[-1] > 300:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(**given)

    model.forward = small
    assert one.marks(Draw(pool="search"))[task] == whole
    assert max(tried) > 300
    tried.clear()
    assert one.marks(Draw(pool="search"))[task] == whole
    assert max(tried) <= 300, "what was learnt is kept"


def test_memory_too_small_for_a_single_row_is_the_candidates_failure(tasks: Path, model: Any) -> None:
    def never(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for task in ("choices", "written"):
        one = scorer(tasks, model, task=task)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
            patch.setattr(model, "forward", never)
            one.marks(Draw(pool="search"))


def test_bytes_of_a_token_are_those_of_its_keys_and_values_and_activations(model: Any) -> None:
    config = model.config
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert cached < token_bytes(model) < cached + 64 * (config.hidden_size + config.intermediate_size)
