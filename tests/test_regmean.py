"""RegMean: the solution of its least squares, on what experts read; merged at equal weights it is one model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_family
from lm_tasks import write_tasks
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from evomerge.checkpoint import open_parents
from evomerge.fitness import Fitness, Items, Objective
from evomerge.materialize import Grams, LiveModel, shares
from evomerge.regmean import RegMean
from evomerge.score import TaskScorer, open_banks
from evomerge.space import fixed_recipes

CPU = torch.device("cpu")
OWNERS = {"one": {"choices": range(20)}, "two": {"exact": range(20)}}


def rewritten(
    folder: Path, family: str, eps: tuple[float, ...] = (1e-7,), **changes: object
) -> tuple[dict[str, Path], TaskScorer, LiveModel]:
    paths = make_family(family, folder / "models", **changes)  # type: ignore[arg-type]
    objectives = {name: Objective(task=name) for name in ("choices", "exact")}
    fitness = Fitness(
        include=(str(write_tasks(folder / "tasks")),), objectives=objectives, items=Items(search=20, confirm=10)
    )
    files = open_parents(str(paths["base"]), {name: str(paths[name]) for name in OWNERS}, 0)
    live = LiveModel(files, CPU)
    scorer = TaskScorer(fitness, open_banks(fitness), live.model, files.template)
    RegMean(live, scorer.lessons(), OWNERS).write({each: folder / f"{each:g}" for each in eps})
    return paths, scorer, live


@torch.no_grad()
def read_by(path: Path, scorer: TaskScorer, task: str) -> dict[str, Tensor]:
    """What every linear map of a model reads of a task's search items, without first tokens: (tokens, inputs)."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    read: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            module.register_forward_pre_hook(lambda _, xs, name=name: read.setdefault(name, []).append(xs[0][0, 1:]))
    for place, key in enumerate(scorer.table.tasks[task].search.ids):
        requests = scorer.requests(task, key)
        request = requests[place % len(requests)]
        tokens = (*request.context, *request.continuation[:-1]) if task == "choices" else request.context
        model(torch.tensor([tokens]), use_cache=False)
    return {name: torch.cat(rows) for name, rows in read.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
@torch.no_grad()
def test_maps_are_the_least_squares_of_what_was_read(family: str, tmp_path: Path) -> None:
    """With few of an expert's inputs wrong the residual would grow: all gradients of the sum of squares vanish."""
    paths, scorer, _ = rewritten(tmp_path, family)
    models = {n: AutoModelForCausalLM.from_pretrained(p, dtype=torch.float64) for n, p in paths.items()}
    made = {n: AutoModelForCausalLM.from_pretrained(tmp_path / "1e-07" / n, dtype=torch.float64) for n in OWNERS}
    inputs = {n: read_by(paths[n], scorer, task) for n, (task,) in OWNERS.items()}
    base = dict(models["base"].named_parameters())
    checked = 0
    for name, weight in base.items():
        deltas = {n: dict(made[n].named_parameters())[name] - weight for n in OWNERS}
        merged = weight + sum(deltas.values()) / len(OWNERS)
        own = {n: dict(models[n].named_parameters())[name] for n in OWNERS}
        module = models["base"].get_submodule(name.rpartition(".")[0])
        inner = (".layers." in name or ".h." in name) and name.endswith("weight")
        if not inner or not isinstance(module, torch.nn.Linear | Conv1D):
            for n in OWNERS:
                assert torch.allclose(made[n].get_parameter(name), own[n], atol=1e-6), name
            continue
        checked += 1
        turned = (lambda t: t.T) if isinstance(module, Conv1D) else (lambda t: t)
        x = {n: inputs[n][name.removesuffix(".weight")].double() for n in OWNERS}
        gradient = sum(turned(merged - own[n]) @ x[n].T @ x[n] for n in OWNERS)
        scale = sum(float((turned(own[n] - weight) @ x[n].T @ x[n]).abs().max()) for n in OWNERS)
        assert float(gradient.abs().max()) < 0.01 * scale, name  # type: ignore[union-attr]
    assert checked >= 12


def test_rounds_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, scorer, live = rewritten(tmp_path, "llama", (0.02, 0.2))
    monkeypatch.setattr("evomerge.regmean.SHARE", 0.0)
    maker = RegMean(live, scorer.lessons(), OWNERS)
    assert [list(layers) for layers in maker._rounds()] == [[0], [1], [2]]
    maker.write({0.2: tmp_path / "again"})
    for name in OWNERS:
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / "again" / name / file).read_bytes() == (tmp_path / "0.2" / name / file).read_bytes()


def test_experts_in_16_bits_are_rewritten_in_32(tmp_path: Path) -> None:
    paths, _, _ = rewritten(tmp_path, "llama", (0.02,), dtype="bfloat16")
    made = {name: str(tmp_path / "0.02" / name) for name in OWNERS}
    assert {each.dtype for each in load_file(tmp_path / "0.02/one/model.safetensors").values()} == {torch.float32}
    files = open_parents(str(paths["base"]), made, 0)
    assert files.parents.dtype == "bfloat16"
    LiveModel(files, CPU).load(fixed_recipes(files.parents)["uniform average"])


def test_a_round_reads_without_leaving_anything(tmp_path: Path) -> None:
    _, scorer, live = rewritten(tmp_path, "llama")
    assert not any(module._forward_pre_hooks for module in live.model.modules())
    assert scorer.lessons().read(OWNERS["one"] | OWNERS["two"], lambda filled: None) == 40


def test_shares_sum_to_one_and_are_even_without_inputs() -> None:
    rng = np.random.default_rng(0)
    x = [torch.tensor(rng.standard_normal((rows, 6)), dtype=torch.float32) for rows in (4, 9)]
    found = shares([each.T @ each for each in x], 0.1)
    assert torch.allclose(found[0] + found[1], torch.eye(6, dtype=torch.float64), atol=1e-9)
    even = shares([torch.zeros(6, 6), torch.zeros(6, 6)], 0.1)
    assert all(torch.allclose(each, torch.eye(6, dtype=torch.float64) / 2) for each in even)


def test_maps_that_read_the_same_share_a_gram_matrix_and_padding_counts_for_nothing() -> None:
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 5)
    grams, x = Grams(), torch.randn(2, 4, 3)
    filled = torch.tensor([[True, True, False, False], [True, True, True, True]])
    with grams.watching({"one": one, "two": two}):
        grams.begin(filled)
        two(x), one(x)
        grams.begin(filled)
        two(x), one(x)
    assert grams["one"] is grams["two"] is not None
    assert grams.stands_for("one") == "two"
    rows = torch.cat([x[0, 1:2], x[1, 1:]])  # First tokens count for nothing, either.
    assert torch.allclose(grams["one"], 2 * rows.T @ rows, atol=1e-5)  # type: ignore[arg-type]


def test_mixtures_of_experts_are_rewritten_where_they_can_be(tmp_path: Path) -> None:
    rewritten(tmp_path, "mixtral", (0.2,))
    for name in OWNERS:
        AutoModelForCausalLM.from_pretrained(tmp_path / "0.2" / name)
