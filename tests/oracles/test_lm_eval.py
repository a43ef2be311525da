"""Marks and log-likelihoods against lm-eval's own `simple_evaluate` with HFLM on the merged folder, item by item."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from conftest import DEMO_MODELS
from families import FAMILIES, make_family
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_tasks import LEAVES, TASKS, write_groups, write_tasks

from evomerge.assemble import merge
from evomerge.checkpoint import open_parents
from evomerge.estimate import Grader
from evomerge.fitness import Fitness, Items, Objective
from evomerge.items import POOLS
from evomerge.materialize import LiveModel
from evomerge.score import TaskScorer, open_banks
from evomerge.score.tasks import mark_of, metric_name
from evomerge.space import fixed_recipes
from evomerge.trial import Draw


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LiveModel]:
    """A merge of the demo's experts, exported and resident."""
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    files = open_parents(str(DEMO_MODELS / "base"), experts, 0)
    recipe = fixed_recipes(files.parents)["task arithmetic 0.85"].model_copy(update={"dtype": "float32"})
    out = tmp_path_factory.mktemp("merged") / "model"
    merge(recipe, out)
    live = LiveModel(files, torch.device("cpu"))
    live.load(recipe)
    return out, live


def reference(folder: Path, tasks: Path, name: str, **arguments: Any) -> list[dict[str, Any]]:
    lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=8)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[name],
        task_manager=manager,
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
        bootstrap_iters=0,  # Of its standard errors, which take a minute and are not compared.
        **arguments,
    )
    samples: list[dict[str, Any]] = found["samples"][name]
    return samples


def ours(live: LiveModel, folder: Path, tasks: Path, objective: Objective) -> tuple[Mapping[str, Any], list[int], Any]:
    """Marks on all items, the document behind each, and the scorer."""
    fitness = Fitness(include=(str(tasks),), objectives={"it": objective}, items=Items(search=25, confirm=15))
    scorer = TaskScorer(fitness, open_banks(fitness), live.model, folder)
    name = str(objective.task)
    bank = scorer._banks[name]
    marks: dict[str, list[float]] = {}
    order = []
    for pool in ("search", "confirm"):
        found = scorer.marks(Draw.model_validate({"pool": pool}))[name]
        order += [bank.items[key].index for key in scorer.table.tasks[name].pool(pool).ids]
        for metric, values in found.items():
            marks.setdefault(metric, []).extend(values)
    return marks, order, scorer


@pytest.mark.parametrize("name", TASKS)
def test_marks_equal_those_of_simple_evaluate(
    name: str, tasks: Path, merged: tuple[Path, LiveModel], monkeypatch: Any
) -> None:
    folder, live = merged
    monkeypatch.chdir(tasks)
    samples = reference(folder, tasks, name)
    marks, order, scorer = ours(live, folder, tasks, Objective(task=name))
    assert not scorer.notes
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    compared = 0
    for sample in samples:
        place = order.index(sample["doc_id"])
        if _undecided(sample):
            continue
        for metric in sample["metrics"]:
            expected = mark_of(metric, sample[metric])
            if expected is None:
                assert metric == "mcc"
                continue
            found = marks[metric_name(metric, sample["filter"], filters)][place]
            assert found == pytest.approx(expected, abs=1e-4), (metric, sample["doc_id"])
            compared += 1
    assert compared >= 40
    plain = {"choices": "acc", "exact": "acc", "written": "exact_match,strict"}.get(name)
    if plain is not None:
        assert 0 < sum(marks[plain]) < 40, "a task on which all marks are the same shows nothing"


@pytest.mark.parametrize("name", ["sized", "even"])
def test_a_groups_number_is_lm_evals(
    name: str, merged: tuple[Path, LiveModel], monkeypatch: Any, tmp_path: Path
) -> None:
    """All documents scored: means over documents or over sub-tasks, as the group says."""
    folder, live = merged
    monkeypatch.chdir(write_groups(tmp_path))
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=8),
        tasks=[name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
        bootstrap_iters=0,
    )
    objective = Objective(task=name, metric="perplexity")
    items = Items(search=12, confirm=14, report=sum(LEAVES.values()) - 26)
    fitness = Fitness(include=(str(tmp_path),), objectives={"it": objective}, items=items)
    scorer = TaskScorer(fitness, open_banks(fitness), live.model, folder)
    value, _ = Grader(fitness, scorer.table).joined([scorer.marks(Draw(pool=pool)) for pool in POOLS])["it"]
    # Only lm-eval's marks have the sign of a log-likelihood.
    assert -value == pytest.approx(found["groups"][name]["perplexity,none"], abs=1e-4)
    assert bool(scorer.table.tasks[name].search.weights) == (name == "even")


def _undecided(sample: Mapping[str, Any]) -> bool:
    """Options whose log-likelihoods lie within 1e-4 of each other may be ranked either way."""
    if len(sample["filtered_resps"]) < 2 or not isinstance(sample["filtered_resps"][0], tuple | list):
        return False
    values = sorted(float(response[0]) for response in sample["filtered_resps"])
    return any(b - a < 1e-4 for a, b in pairwise(values))


def test_log_likelihoods_are_within_1e_4(tasks: Path, merged: tuple[Path, LiveModel], monkeypatch: Any) -> None:
    folder, live = merged
    monkeypatch.chdir(tasks)
    for name in ("choices", "letters", "fewshot", "exact", "rolling"):
        samples = reference(folder, tasks, name)
        _, _, scorer = ours(live, folder, tasks, Objective(task=name))
        bank = scorer._banks[name]
        by_index = {item.index: key for key, item in bank.items.items()}
        scorer.marks(Draw(pool="search"))
        scorer.marks(Draw(pool="confirm"))
        for sample in samples:
            instances = sorted(scorer._requests[name][by_index[sample["doc_id"]]], key=lambda one: one.idx)
            for instance, theirs in zip(instances, sample["resps"], strict=True):
                expected, found = theirs[0], instance.resps[0]
                if isinstance(expected, tuple | list):
                    assert bool(found[1]) == bool(expected[1])
                    expected, found = expected[0], found[0]
                assert float(found) == pytest.approx(float(expected), abs=1e-4)


def test_fewshot_and_system_prompt_are_handed_on(tasks: Path, merged: tuple[Path, LiveModel], monkeypatch: Any) -> None:
    folder, live = merged
    monkeypatch.chdir(tasks)
    samples = reference(folder, tasks, "fewshot", num_fewshot=1, system_instruction="Calc well. ")
    objective = Objective(task="fewshot", fewshot=1, system="Calc well. ")
    marks, order, _ = ours(live, folder, tasks, objective)
    for sample in samples:
        if not _undecided(sample):
            assert marks["acc"][order.index(sample["doc_id"])] == sample["acc"]


def test_chat_template_is_applied(
    tasks: Path, merged: tuple[Path, LiveModel], monkeypatch: Any, tmp_path: Path
) -> None:
    import shutil

    folder, live = merged
    chatty = tmp_path / "chatty"
    shutil.copytree(folder, chatty)
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %} =>{% endif %}"
    (chatty / "chat_template.jinja").write_text(template)
    monkeypatch.chdir(tasks)
    samples = reference(chatty, tasks, "written", apply_chat_template=True)
    marks, order, scorer = ours(live, chatty, tasks, Objective(task="written", chat_template=True))
    for sample in samples:
        found = marks[metric_name("exact_match", sample["filter"], ["strict", "first-number"])]
        assert found[order.index(sample["doc_id"])] == sample["exact_match"]
    prompt = next(iter(scorer._requests["written"].values()))[0].args[0]
    assert prompt.endswith("=> =>")


def test_what_the_native_path_cannot_serve_goes_through_hflm(
    tasks: Path, merged: tuple[Path, LiveModel], monkeypatch: Any
) -> None:
    folder, live = merged
    monkeypatch.chdir(tasks)
    arguments = {"num_beams": 2, "max_gen_toks": 14, "until": ["\n"], "do_sample": False}
    samples = reference(folder, tasks, "long", gen_kwargs=dict(arguments))
    marks, order, scorer = ours(live, folder, tasks, Objective(task="long", generation=arguments))
    assert "num_beams" in next(iter(scorer.notes))
    for sample in samples:
        assert marks["exact_match"][order.index(sample["doc_id"])] == sample["exact_match"]


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_contexts_and_caches_are_right_in_every_family(
    family: str, tasks: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Random weights: whatever the class does with masks, positions and caches shows in the numbers."""
    paths = make_family(family, tmp_path, ("base", "one"))
    files = open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)
    live = LiveModel(files, torch.device("cpu"))
    live.load(fixed_recipes(files.parents)["one"])
    monkeypatch.chdir(tasks)
    for name in ("choices", "long"):
        samples = reference(paths["one"], tasks, name)
        _, _, scorer = ours(live, paths["one"], tasks, Objective(task=name))
        assert not scorer.notes
        bank = scorer._banks[name]
        by_index = {item.index: key for key, item in bank.items.items()}
        for sample in samples[:12]:
            instances = sorted(scorer._requests[name][by_index[sample["doc_id"]]], key=lambda one: one.idx)
            for instance, theirs in zip(instances, sample["resps"], strict=True):
                if name == "choices":
                    assert instance.resps[0][0] == pytest.approx(theirs[0][0], abs=1e-4)
                else:
                    assert instance.resps[0] == theirs[0]
