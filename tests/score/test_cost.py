"""Tokens of items, against what the model is really fed."""

from pathlib import Path

import pytest
from conftest import DEMO_MODELS
from lm_tasks import write_tasks
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import POOLS
from evomerge.score import TaskScorer, open_banks
from evomerge.score.prepared import Prepared
from evomerge.score.responses import Responder


@pytest.fixture(scope="module")
def responder() -> Responder:
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths").eval()
    return Responder(model, AutoTokenizer.from_pretrained(DEMO_MODELS / "maths"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.mark.parametrize("task", ["exact", "choices", "fewshot", "mutual", "rolling", "written"])
def test_items_cost_what_is_read_and_may_be_written(task: str, responder: Responder, tasks: Path) -> None:
    items = Items(search=6, confirm=5, report=4)
    fitness = Fitness(include=(str(tasks),), objectives={"it": Objective(task=task)}, items=items)
    banks = open_banks(fitness)
    assert banks[task].table.search.costs == (), "a bank knows no tokenizer"
    scorer = TaskScorer(fitness, banks, responder.model, DEMO_MODELS / "maths")
    for name in POOLS:
        pool = scorer.table.tasks[task].pool(name)
        for key, cost in zip(pool.ids, pool.costs, strict=True):
            prepared = Prepared(responder, scorer._requests[task][key], scorer._encode(task, key))
            contexts = {request.context for request in prepared._passes._requests}
            read = sum(map(len, contexts)) + sum(len(request.continuation) for request in prepared._passes._requests)
            written = sum(len(prompt.tokens) + 14 for prompt in prepared._prompts or ())
            assert cost == read + written
