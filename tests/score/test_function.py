"""A Python callable in place of lm-eval tasks, through the public Python API."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS

import evomerge
from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective, TieBreak
from evomerge.space import BlendSpec
from evomerge.spec import Budget, Models, RunSpec


class Sizes:
    """Marks a model by its weights: closeness of a norm to a wish, and a second, opposite metric."""

    items = {"weights": [f"model.layers.{i}.mlp.up_proj.weight" for i in range(6)]}

    def __call__(
        self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, list[float]]]:
        assert tokenizer("Sort: 1")["input_ids"]
        state = model.state_dict()
        norms = [float(torch.linalg.vector_norm(state[name])) for name in items["weights"]]
        return {"weights": {"size": norms, "smallness": [1 / norm for norm in norms]}}


def spec(**changes: Any) -> RunSpec:
    whole = RunSpec(
        models=Models(
            base=str(DEMO_MODELS / "base"),
            experts={"maths": str(DEMO_MODELS / "maths"), "japanese": str(DEMO_MODELS / "japanese")},
        ),
        space=BlendSpec(groups="model", outer="join"),
        fitness=Fitness(
            objectives={
                "size": Objective(task="weights", metric="size"),
                "smallness": Objective(task="weights", metric="smallness", direction="max"),
            },
            items=Items(search=3, confirm=3),
        ),
        budget=Budget(evaluations=24),
    )
    return whole.model_copy(update=changes)


def test_search_resume_load_and_merge(tmp_path: Path) -> None:
    results = evomerge.search(spec(), tmp_path / "RUN", scorer=Sizes())
    assert results.status == "finished"
    assert len(results.front) >= 2
    assert results.best is not None
    largest = results.pick("size")
    assert largest.confirmed is not None
    assert largest.confirmed["size"][0] > max(
        row.confirmed["size"][0] for row in results.baselines[:3] if row.confirmed
    )
    longer = evomerge.resume(tmp_path / "RUN", budget=Budget(evaluations=30), scorer=Sizes())
    assert len(longer.state.finished()) == 30
    read = evomerge.load(tmp_path / "RUN")
    assert read.to_json() == longer.to_json()
    evomerge.merge(read.recipe(largest.number), tmp_path / "M")
    marks = Sizes()(*_loaded(tmp_path / "M"), items=_confirm_ids(read))
    assert marks["weights"]["size"] == pytest.approx(read.marks(largest.number, "confirm")["weights"]["size"])  # type: ignore[index]


def _loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def _confirm_ids(results: Any) -> dict[str, list[str]]:
    return {"weights": list(results.store.table.tasks["weights"].confirm.ids)}


def test_a_run_wants_its_own_scorer_back(tmp_path: Path) -> None:
    evomerge.search(spec(), tmp_path / "RUN", scorer=Sizes())
    with pytest.raises(SpecError, match="was scored by .*Sizes, not by lm-eval tasks"):
        evomerge.resume(tmp_path / "RUN")


def test_a_scorer_without_items_for_a_task(tmp_path: Path) -> None:
    fitness = Fitness(objectives={"x": Objective(task="nothing", metric="size")}, items=Items(search=3, confirm=3))
    with pytest.raises(SpecError, match="no items for 'nothing'; it has weights"):
        evomerge.search(spec(fitness=fitness), tmp_path / "RUN", scorer=Sizes())
    assert not (tmp_path / "RUN").exists()


def test_every_metric_that_a_fitness_names_is_asked_for(tmp_path: Path) -> None:
    class Three(Sizes):
        def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
            marks = super().__call__(model, tokenizer, items)["weights"]
            return {"weights": {**marks, "score": [2.0] * len(marks["size"]), "noise": [float("nan")]}}

    objectives = {
        "size": Objective(task="weights", metric="size", tie_break=TieBreak(metric="smallness", weight=0.1)),
        "plain": Objective(task="weights"),
    }
    fitness = Fitness(objectives=objectives, items=Items(search=3, confirm=3))
    results = evomerge.search(spec(fitness=fitness, budget=Budget(evaluations=6)), tmp_path / "RUN", scorer=Three())
    assert not results.to_json()["failures"]
    best = results.best
    assert best is not None
    assert best.search is not None
    assert best.search["plain"][0] == 2.0
    assert best.search["size"][0] != 2.0


@pytest.mark.parametrize(
    ("field", "value"), [("fewshot", 2), ("chat_template", True), ("system", "Be good."), ("generation", {"a": 1})]
)
def test_what_shapes_prompts_means_nothing_to_a_scorer(field: str, value: Any, tmp_path: Path) -> None:
    odd = Objective.model_validate({"task": "weights", "metric": "size", field: value})
    fitness = Fitness(objectives={"a": Objective(task="weights", metric="size"), "b": odd}, items=Items(search=3))
    with pytest.raises(SpecError, match=rf"fitness\.objectives\.b\.{field} has no meaning with a scorer; leave it"):
        evomerge.search(spec(fitness=fitness), tmp_path / "RUN", scorer=Sizes())
    assert not (tmp_path / "RUN").exists()


def test_a_scorer_that_gives_too_few_marks_ends_the_search(tmp_path: Path) -> None:
    class Lazy(Sizes):
        def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
            marks = super().__call__(model, tokenizer, items)
            return {"weights": {"size": marks["weights"]["size"][:-1], "smallness": marks["weights"]["smallness"]}}

    with pytest.raises(SpecError, match="base cannot be scored: the scorer gave 2 marks of size for 3 items"):
        evomerge.search(spec(budget=Budget(evaluations=6)), tmp_path / "RUN", scorer=Lazy())
