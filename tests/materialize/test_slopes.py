"""Slopes by merge coefficients: those of autograd through merges written plainly in fp64, for operators and grains."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from blends import CPU, NAMES, OPERATORS, opened, recipe_of
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, Shares
from evomerge.materialize import LiveModel, Slopes
from evomerge.recipe import Blend, Coefficients, Grain, Recipe

TOKENS = torch.tensor([[5, 9, 17, 30, 41, 7], [11, 3, 200, 8, 64, 77]])
EXPERTS = {"experts_implementation": "eager"}
"""What mixtures of experts need to compute in fp64."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ParentFiles:
    return opened("llama", tmp_path_factory.mktemp("llama"))


def loss_of(model: torch.nn.Module, **weights: Tensor) -> Tensor:
    out = (
        functional_call(model, weights, (TOKENS,), {"use_cache": False}) if weights else model(TOKENS, use_cache=False)
    )
    return torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())


def slopes(
    live: LiveModel, recipe: Recipe, grain: Grain, coefficients: Coefficients | None = None
) -> dict[str, np.ndarray]:
    live.load(recipe, coefficients)
    with Slopes(live).gathered(recipe, coefficients, grain) as gathered, torch.enable_grad():
        loss_of(live.model).backward()
    return gathered.slopes()


def plainly(files: ParentFiles, live: LiveModel, recipe: Recipe, start: Coefficients) -> dict[str, np.ndarray]:
    """Slopes by the coefficients `start`, by autograd through all of it."""
    model = AutoModelForCausalLM.from_pretrained(files.template.path, dtype=torch.float64, **EXPERTS).eval()
    model.load_state_dict({name: t.double() for name, t in live.model.state_dict().items()}, strict=False)
    leaves, merged = {}, {}
    shares = Shares(recipe, files.anatomy)
    for source, place in files.anatomy.of_depth(recipe.origins()):
        name, shape = files.anatomy.at(place), files.anatomy.shapes[source]
        leaves[name] = torch.tensor(start.arrays[name], dtype=torch.float64, requires_grad=True)
        mix = shares.mix(place).blend
        read = {p: files.checkpoints[p].tensor(files.accounts[p].read[source]) for p in ("base", *NAMES)}
        kept = {}
        if mix.operator.kind == "dare_ties":  # What is kept of each task vector shows where it alone is merged.
            for name_of, single in zip(NAMES, mix.sources, strict=True):
                alone = mix.model_copy(update={"sources": (single.model_copy(update={"weight": 1.0}),)})
                kept[name_of] = merge_of(live, recipe, place, alone) - read["base"].reshape(-1)
        xs = {p: t.double().reshape(shape) for p, t in read.items()}
        c = spread(leaves[name], shape, start.grain)
        merged[name] = arithmetic(mix, xs, c, {n: t.double().reshape(shape) for n, t in kept.items()})
    loss_of(model, **merged).backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}  # type: ignore[union-attr]


def merge_of(live: LiveModel, recipe: Recipe, place: object, blend: Blend) -> Tensor:
    from evomerge.materialize.merger import Job

    source = live.files.anatomy.at(place)  # type: ignore[arg-type]
    out = torch.empty(torch.Size(live.files.anatomy.shapes[source]).numel())
    live.merger.write(Job(blend, source, out, torch.float32, recipe.seed))
    return out


def spread(c: Tensor, shape: tuple[int, ...], grain: Grain) -> list[Tensor]:
    if c.shape[1] == 1:
        return [each.view([1] * len(shape)) for each in c]
    return [each if grain == "column" else each.view(*shape[:-1], 1) for each in c]


def arithmetic(mix: Blend, xs: dict[str, Tensor], c: list[Tensor], kept: dict[str, Tensor]) -> Tensor:
    operator, base, experts = mix.operator, xs["base"], [xs[name] for name in NAMES]
    match operator.kind:
        case "linear":
            total = sum(w * x for w, x in zip(c, experts, strict=True))
            return total / sum(c) if operator.normalize else total  # type: ignore[return-value]
        case "slerp":
            a, b = (x.flatten() for x in experts)
            cosine = (a @ b) / (a.norm() * b.norm())
            if cosine.abs() > 0.9995:
                return (1 - c[0]) * experts[0] + c[0] * experts[1]
            angle = torch.acos(cosine)
            return (torch.sin((1 - c[0]) * angle) * experts[0] + torch.sin(c[0] * angle) * experts[1]) / torch.sin(
                angle
            )
        case "task_arithmetic":
            total = sum(w * (x - base) for w, x in zip(c, experts, strict=True))
            return base + operator.scale * (total / sum(c) if operator.normalize else total)
        case "ties":
            return base + operator.scale * voted([trimmed(x - base, 0.6) for x in experts], c, operator.normalize)
        case "dare_ties":
            return base + operator.scale * voted([kept[name] for name in NAMES], c, operator.normalize)


def trimmed(delta: Tensor, density: float) -> Tensor:
    count = max(1, int(density * delta.numel() + 1e-9))
    return torch.where(delta.abs() >= delta.abs().flatten().sort(descending=True).values[count - 1], delta, 0.0)


def voted(deltas: list[Tensor], c: list[Tensor], normalize: bool) -> Tensor:
    parts = [w * d for w, d in zip(c, deltas, strict=True)]
    sign = torch.where(sum(parts).detach() >= 0, 1.0, -1.0)  # type: ignore[union-attr]
    agree = [(part.detach() * sign > 0).double() for part in parts]
    total = sum(part * a for part, a in zip(parts, agree, strict=True))
    if not normalize:
        return total  # type: ignore[return-value]
    divisor = sum(w * a for w, a in zip(c, agree, strict=True))
    return total / torch.where(divisor == 0, 1.0, divisor)  # type: ignore[arg-type]


def assert_alike(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, slope in wanted.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == slope.shape, name
        np.testing.assert_allclose(found[name], slope, rtol=2e-3, atol=2e-4 * np.abs(slope).max() + 1e-7, err_msg=name)


def varied(files: ParentFiles, recipe: Recipe, grain: Grain) -> Coefficients:
    """Coefficients that differ wherever this grain lets them."""
    even = Shares(recipe, files.anatomy).coefficients(None if grain == "tensor" else grain)
    rng = np.random.default_rng(1)
    moved = {n: (a + 0.2 * rng.standard_normal(a.shape)).astype(np.float32) for n, a in even.arrays.items()}
    return Coefficients(grain, moved)


@pytest.mark.parametrize("grain", ["tensor", "column", "row"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_slopes_are_those_of_autograd(kind: str, grain: Grain, llama: ParentFiles) -> None:
    live = LiveModel(llama, CPU)
    plain = recipe_of(llama, kind)
    start = varied(llama, plain, grain)
    recipe = plain.refined(start)
    found = slopes(live, recipe, grain, None if grain == "tensor" else start)
    assert_alike(found, plainly(llama, live, plain, start))


@pytest.mark.parametrize("grain", ["column", "row"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "gpt_neox", "qwen3", "mixtral"])
def test_every_family_has_them(family: str, grain: Grain, tmp_path: Path) -> None:
    files = opened(family, tmp_path)
    live = LiveModel(files, CPU)
    recipe = recipe_of(files, "task_arithmetic")
    start = Shares(recipe, files.anatomy).coefficients(grain)
    assert_alike(slopes(live, recipe, grain), plainly(files, live, recipe, start))


def test_finer_slopes_sum_to_coarser_ones(llama: ParentFiles) -> None:
    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "ties")
    whole, columns, rows = (slopes(live, recipe, grain) for grain in ("tensor", "column", "row"))
    for name, slope in whole.items():
        for fine in (columns, rows):
            np.testing.assert_allclose(fine[name].sum(1, keepdims=True), slope, rtol=1e-3, atol=1e-6)


def test_a_layer_that_comes_twice_has_slopes_at_each_place(llama: ParentFiles) -> None:
    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "task_arithmetic", (0, 1, 1, 2))
    found = slopes(live, recipe, "tensor")
    first, second = (found[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in (1, 2))
    assert not np.allclose(first, second, rtol=0.01)
    for layer, slope in ((1, first), (2, second)):
        for source in range(2):
            assert slope[source, 0] == pytest.approx(difference(live, recipe, layer, source), rel=0.02, abs=1e-4)


def difference(live: LiveModel, recipe: Recipe, layer: int, source: int, step: float = 0.02) -> float:
    """How the loss changes with one coefficient, by moving it to both sides."""
    losses = []
    for move in (step, -step):
        moved = dict(Shares(recipe, live.files.anatomy).coefficients(None).arrays)
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        moved[name] = moved[name] + np.float32(move) * (np.arange(2) == source).astype(np.float32)[:, None]
        live.load(recipe.refined(Coefficients("tensor", moved)))
        losses.append(float(loss_of(live.model)))
    return (losses[0] - losses[1]) / (2 * step)


def test_nothing_is_left_behind(llama: ParentFiles) -> None:
    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "task_arithmetic")
    live.load(recipe)
    hung = {name: id(parameter) for name, parameter in live.model.named_parameters()}
    first, second = slopes(live, recipe, "column"), slopes(live, recipe, "column")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert {name: id(parameter) for name, parameter in live.model.named_parameters()} == hung
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in live.model.parameters())


def test_one_gradient_is_there_at_a_time(llama: ParentFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.materialize.movement import Movement

    live, recipe = LiveModel(llama, CPU), recipe_of(llama, "task_arithmetic")
    plain: Callable[..., Tensor] = Movement.contracted
    there: list[int] = []

    def watching(self: Movement, gradient: Tensor, grain: Grain) -> Tensor:
        there.append(sum(parameter.grad is not None for parameter in live.model.parameters()))
        return plain(self, gradient, grain)

    monkeypatch.setattr(Movement, "contracted", watching)
    found = slopes(live, recipe, "tensor")
    assert len(there) == len(found)
    assert not any(there)


def test_what_no_expert_changed_is_not_gone_back_to(tmp_path: Path) -> None:
    files = opened("llama", tmp_path)
    recipe = recipe_of(files, "task_arithmetic")
    still = recipe.model_copy(
        update={"layers": tuple(layer.model_copy(update={"blend": same(layer.blend)}) for layer in recipe.layers)}
    )
    live = LiveModel(files, CPU)
    found = slopes(live, still, "column")
    for name, slope in found.items():
        assert bool(slope.any()) == (not name.startswith("model.layers.")), name


def same(blend: Blend) -> Blend:
    """The same of base and base."""
    return blend.model_copy(
        update={"sources": tuple(source.model_copy(update={"parent": "base"}) for source in blend.sources)}
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_passed_straight_through(dtype: str, tmp_path: Path) -> None:
    files = opened("llama", tmp_path, dtype=dtype)
    live, recipe = LiveModel(files, CPU), recipe_of(files, "task_arithmetic")
    start = Shares(recipe, files.anatomy).coefficients("column")
    found, wanted = slopes(live, recipe, "column"), plainly(files, live, recipe, start)
    for name, slope in wanted.items():
        assert np.abs(found[name] - slope).max() < 0.1 * np.abs(slope).max() + 1e-6


def test_a_weight_of_zero_may_still_grow(llama: ParentFiles) -> None:
    live, plain = LiveModel(llama, CPU), recipe_of(llama, "ties, not normalised")
    zero = Coefficients("tensor", {n: np.array([[0.7], [0.0]], np.float32) for n in slopes(live, plain, "tensor")})
    found = slopes(live, plain.refined(zero), "tensor")
    assert all(slope[1].any() for slope in found.values())
