"""Prompts that cannot be made are one line with task, document and way out; what lm-eval leaves out is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DEMO_MODELS
from lm_tasks import write_tasks
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective
from evomerge.score import TaskScorer, open_banks

RAISES = "{{ raise_exception('no talking\n here') }}"
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)
ANY = "{% for m in messages %}{{ m.content }}{% endfor %}"
Put = Callable[..., TaskScorer]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "base", dtype=torch.float32).eval()


@pytest.fixture
def put(tmp_path: Path, model: PreTrainedModel) -> Put:
    """Puts a task, with some of its keys replaced, to a model with this chat template."""
    tasks = write_tasks(tmp_path / "tasks")
    folder = Path(shutil.copytree(DEMO_MODELS / "base", tmp_path / "base"))

    def made(objective: dict[str, Any], template: str | None = None, **keys: object) -> TaskScorer:
        config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        task = tasks / f"{objective['task']}.yaml"
        task.write_text(yaml.safe_dump(yaml.safe_load(task.read_text()) | keys))
        fitness = Fitness(
            include=(str(tasks),), objectives={"x": Objective(**objective)}, items=Items(search=4, confirm=4)
        )
        return TaskScorer(fitness, open_banks(fitness), model, folder)

    return made


@pytest.mark.parametrize(
    ("objective", "template", "keys", "words"),
    [
        ({"task": "exact", "chat_template": True}, RAISES, {}, ["no talking here", "another chat_template, or"]),
        ({"task": "exact", "chat_template": True, "system": "Hm."}, RAISES, {}, ["chat_template or system"]),
        ({"task": "fewshot", "fewshot": 5000}, None, {}, ["arger", "give another fewshot, or none"]),
        ({"task": "exact"}, None, {"doc_to_text": "{{prompt if '12+29' in answer else gone}}"}, ["'gone'", "mend"]),
        ({"task": "exact"}, None, {"doc_to_target": ""}, ["continuation"]),
        ({"task": "exact"}, None, {"doc_to_target": [0, 10**9]}, ["'[0, 1000000000]', which is no text"]),
        ({"task": "exact"}, None, {"doc_to_target": "{{answer * 600}}"}, ["more than the model's window"]),
        ({"task": "written", "generation": {"max_gen_toks": 99_999}}, None, {}, ["max_gen_toks is 99999"]),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be_made(
    objective: dict[str, Any], template: str | None, keys: dict[str, Any], words: list[str], put: Put
) -> None:
    with pytest.raises(SpecError) as refusal:
        put(objective, template, **keys)
    said = str(refusal.value)
    for word in (f"task '{objective['task']}'", f"of {objective['task']}", *words):
        assert word in said, said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("objective", "template", "keys", "said"),
    [
        ({"system": "Hm."}, NO_SYSTEM, {}, "system of exact is left out"),
        ({}, NO_SYSTEM, {"description": "Hm."}, "the task's description of exact is left out"),
        ({}, NO_SYSTEM, {}, None),
        ({"system": "Hm."}, ANY, {}, None),
    ],
)
def test_a_system_message_that_nobody_hears_is_said(
    objective: dict[str, Any], template: str, keys: dict[str, Any], said: str | None, put: Put
) -> None:
    notes = put({"task": "exact", "chat_template": True} | objective, template, **keys).notes
    assert [said] == [n[: len(said)] for n in notes if "left out" in n] if said else not any("left" in n for n in notes)
