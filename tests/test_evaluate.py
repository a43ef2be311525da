"""A candidate's trouble is a value; trouble that every candidate would have stops the run."""

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS

from evomerge.device import cores, free_host_memory, free_on, take_share
from evomerge.errors import RunError, SpecError
from evomerge.evaluate import Evaluator, EvaluatorFactory
from evomerge.fitness import Fitness, Items, Objective
from evomerge.space import unchanged
from evomerge.spec import Models
from evomerge.trial import Draw, Failure, Work

FITNESS = Fitness(objectives={"x": Objective(task="t", metric="score")}, items=Items(search=2, confirm=2))


class Marker:
    """A scorer that fails as it is told to."""

    items = {"t": ["a", "b", "c", "d"]}

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.mark = 1.0

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        if self.error is not None:
            raise self.error
        return {"t": {"score": [self.mark] * len(items["t"])}}


@pytest.fixture(scope="module")
def built() -> tuple[Evaluator, Marker]:
    marker = Marker()
    models = Models(base=str(DEMO_MODELS / "base"), experts={"maths": str(DEMO_MODELS / "maths")})
    return EvaluatorFactory(models, FITNESS, 0, "cpu", scorer=marker).build(), marker


def work(evaluator: Evaluator) -> Work:
    recipe = unchanged(evaluator.live.files.parents, "maths")
    return Work(id=0, number=0, recipe=recipe, draw=Draw(pool="search"), purpose="search")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("odd"), KeyError("x")])
def test_a_candidates_own_trouble_is_its_failure(error: Exception, built: tuple[Evaluator, Marker]) -> None:
    evaluator, marker = built
    marker.error = error
    outcome = evaluator(work(evaluator)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.stage == "score"
    assert type(error).__name__ in outcome.reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), "device has stopped working"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device has stopped working"),
        (ModuleNotFoundError("No module named 'sacrebleu'", name="sacrebleu"), "'sacrebleu'.*install it"),
    ],
)
def test_what_would_befall_every_candidate_stops_the_run(
    error: Exception, words: str, built: tuple[Evaluator, Marker]
) -> None:
    evaluator, marker = built
    marker.error = error
    with pytest.raises(RunError, match=words):
        evaluator(work(evaluator))


def test_a_model_that_is_no_candidate_and_cannot_be_scored_is_an_error(built: tuple[Evaluator, Marker]) -> None:
    evaluator, marker = built
    marker.error, marker.mark = None, float("nan")
    with pytest.raises(SpecError, match="the model cannot be scored: score of item a of t is nan"):
        evaluator.marks(work(evaluator).recipe, Draw(pool="search"))
    assert isinstance(evaluator(work(evaluator)).outcome, Failure)


def test_a_factory_goes_to_another_process() -> None:
    models = Models(base=None, experts={"maths": str(DEMO_MODELS / "maths")})
    factory = EvaluatorFactory(models, FITNESS, 0)
    assert pickle.loads(pickle.dumps(factory)) == factory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_workers_on_one_gpu_keep_to_their_shares() -> None:
    device = torch.device("cuda")
    _, total = torch.cuda.mem_get_info(device)
    try:
        take_share(device, 0.25)
        assert 0 < free_on(device) <= total // 4
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 3, dtype=torch.int8, device=device)
        held = torch.empty(total // 8, dtype=torch.int8, device=device)
        assert free_on(device) <= total // 4 - held.nbytes
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def test_half_a_gpu_is_half_of_its_memory() -> None:
    factory = EvaluatorFactory(Models(base=None, experts={"maths": str(DEMO_MODELS / "maths")}), FITNESS, 0)
    assert [factory.beside(4, 2, gpus).share for gpus in (0.0, 0.5, 1.0)] == [1.0, 0.5, 1.0]
    take_share(torch.device("cpu"), 0.5)
    assert free_on(torch.device("cpu")) == 0


def test_a_machine_without_linux_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_host_memory() < 2**50
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()
    monkeypatch.setattr(Path, "exists", lambda self: str(self) != "/proc/meminfo")
    assert 0 < free_host_memory() < 2**50
