"""Derivatives of each request's own score by a few numbers: those that go through gradients of weights, one by one."""

from pathlib import Path

import pytest
import torch
from blends import CPU, NAMES, OPERATORS, opened, recipe_of
from families import make_family
from torch import Tensor

from evomerge.checkpoint import ParentFiles, Shares, open_parents
from evomerge.materialize import Jacobians, LiveModel, Slopes
from evomerge.materialize.jacobians import NotByRow
from evomerge.recipe import Recipe
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.rows import Request

CONTEXT = (5, 9, 17, 30, 41, 7)
REQUESTS = [
    Request(CONTEXT, (11, 3)),
    Request(CONTEXT, (200, 8, 64)),  # Another option of the same item.
    Request((77, 12), (45,)),
    Request((300, 301, 5), (9, 9, 10)),
    Request(CONTEXT, (11, 3)),
]
NUMBERS = 5


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ParentFiles:
    return opened("llama", tmp_path_factory.mktemp("llama"))


def ties_of(files: ParentFiles, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Numbers that tensors and sources share in no order."""
    shapes = {name: len(array) for name, array in Shares(recipe, files.anatomy).coefficients(None).arrays.items()}
    return {name: tuple((place + 2 * k) % NUMBERS for k in range(n)) for place, (name, n) in enumerate(shapes.items())}


def together(live: LiveModel, recipe: Recipe, ties: dict[str, tuple[int, ...]], budget: int) -> tuple[Tensor, Tensor]:
    live.load(recipe)
    with Jacobians(live, Slopes(live)).followed(recipe, None, ties) as followed:
        scores = LikelihoodPlan(REQUESTS, live.model, 128, budget, share=False).back(live.model, followed.begin)
    return scores, followed.found()


def one_by_one(live: LiveModel, recipe: Recipe, ties: dict[str, tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    live.load(recipe)
    scores, found = [], torch.zeros(len(REQUESTS), NUMBERS, dtype=torch.float64)
    for row, request in zip(found, REQUESTS, strict=True):
        with Slopes(live).gathered(recipe, None, "tensor") as gathered, torch.enable_grad():
            score = LikelihoodPlan([request], live.model, 128, 1000, share=False).differentiable(live.model)
            score.sum().backward()
        scores.append(float(score.detach()))
        for name, slope in gathered.slopes().items():
            row.index_add_(0, torch.tensor(ties[name]), torch.from_numpy(slope[:, 0]).double())
    return torch.tensor(scores), found


def assert_alike(files: ParentFiles, kind: str, budget: int = 1000) -> None:
    live, recipe = LiveModel(files, CPU), recipe_of(files, kind)
    ties = ties_of(files, recipe)
    (scores, found), (wanted, slopes) = together(live, recipe, ties, budget), one_by_one(live, recipe, ties)
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, slopes, rtol=1e-4, atol=1e-5 * float(slopes.abs().max()))


@pytest.mark.parametrize("kind", OPERATORS)
def test_every_operator_has_them(kind: str, llama: ParentFiles) -> None:
    assert_alike(llama, kind)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "gpt_neox", "qwen3", "opt", "bloom"])
def test_every_family_has_them(family: str, tmp_path: Path) -> None:
    assert_alike(opened(family, tmp_path), "task_arithmetic")


def test_passes_make_no_difference(llama: ParentFiles) -> None:
    assert_alike(llama, "task_arithmetic", budget=16)


def test_they_are_what_differences_of_the_scores_say(llama: ParentFiles) -> None:
    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "task_arithmetic")
    ties = ties_of(llama, recipe)
    _, found = together(live, recipe, ties, 1000)
    even, step = Shares(recipe, llama.anatomy).coefficients(None), 0.02
    for number in range(NUMBERS):
        sides = []
        for move in (step, -step):
            arrays = {
                name: array + torch.tensor(ties[name]).eq(number).numpy().astype(array.dtype)[:, None] * move
                for name, array in even.arrays.items()
            }
            live.load(recipe.refined(type(even)("tensor", arrays)))
            plan = LikelihoodPlan(REQUESTS, live.model, 128, 1000, share=False)
            sides.append(torch.tensor(plan.run(live.model)[0], dtype=torch.float64))
        wanted = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close(found[:, number], wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


def test_nothing_is_left_behind(llama: ParentFiles) -> None:
    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "ties")
    first, second = (together(live, recipe, ties_of(llama, recipe), 1000) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not any(module._forward_hooks for module in live.model.get_output_embeddings().modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in live.model.parameters())


def test_a_mixture_of_experts_does_not_keep_rows_apart(tmp_path: Path) -> None:
    paths = make_family("mixtral", tmp_path)
    files = open_parents(str(paths["base"]), {name: str(paths[name]) for name in NAMES}, 0)
    live, recipe = LiveModel(files, CPU), recipe_of(files, "task_arithmetic")
    with pytest.raises(NotByRow):
        together(live, recipe, ties_of(files, recipe), 1000)
