"""Weights finer than a blend's: each tensor, column or row is what a merge with that weight alone would make of it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEMO_MODELS
from families import make_family
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM
from unions import kinds_of

from evomerge.checkpoint import Fine, ParentFiles, Shares, open_parents
from evomerge.errors import SpecError
from evomerge.export import export_recipe
from evomerge.materialize import Job, LiveModel, Merger, merger
from evomerge.recipe import (
    Arrays,
    Blend,
    Coefficients,
    DareTies,
    FineGrain,
    Grain,
    Linear,
    Operator,
    Recipe,
    Source,
    TaskArithmetic,
    Ties,
)
from evomerge.space import BlendSpec, bind

CPU = torch.device("cpu")
GRAINS: tuple[FineGrain, ...] = ("column", "row")
SHAPE = (37, 11)
CASES: dict[str, Operator] = {
    "linear": Linear(normalize=False),
    "linear, normalised": Linear(),
    "task_arithmetic": TaskArithmetic(scale=0.9),
    "task_arithmetic, normalised": TaskArithmetic(normalize=True),
    "ties": Ties(normalize=False, scale=1.2),
    "ties, normalised": Ties(),
    "dare_ties": DareTies(rescale="l1"),
    "dare_ties, normalised": DareTies(normalize=True),
}
EXPERTS = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
TOKENS = torch.arange(3, 35).view(2, 16)


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    return open_parents(str(DEMO_MODELS / "base"), EXPERTS, 0)


def start(files: ParentFiles, operator: str = "task_arithmetic") -> Recipe:
    space = bind(BlendSpec.model_validate_json(f'{{"operator": "{operator}", "groups": "model"}}'), files.parents)
    return space.decode((0.5,) * len(space.genes))


def drawn(recipe: Recipe, files: ParentFiles, grain: Grain, seed: int = 0) -> Coefficients:
    """Coefficients of a grain for every tensor, at random."""
    rng = np.random.default_rng(seed)
    shares = Shares(recipe, files.anatomy).coefficients(None if grain == "tensor" else grain)
    return Coefficients(
        grain,
        {
            name: (array + 0.3 * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in shares.arrays.items()
        },
    )


def kept(recipe: Recipe, coefficients: Coefficients, folder: Path) -> Recipe:
    """The recipe with its side file in a folder."""
    refined = recipe.refined(coefficients)
    assert refined.arrays is not None
    (folder / refined.arrays.path).write_bytes(coefficients.content)
    return refined.model_copy(update={"arrays": refined.arrays.at(folder)})


def stored(files: ParentFiles, parent: str, name: str) -> NDArray[np.float32]:
    tensor = files.checkpoints[parent].tensor(files.accounts[parent].read[name])
    return tensor.float().numpy().reshape(files.anatomy.shapes[name])


def weights(files: ParentFiles, recipe: Recipe, coefficients: Coefficients | None = None) -> dict[str, torch.Tensor]:
    live = LiveModel(files, CPU)
    live.load(recipe, coefficients)
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


class Bench:
    """Three experts and a base of one tensor, merged in pieces of a few rows."""

    def __init__(self, operator: Operator, experts: int = 3) -> None:
        generator = torch.Generator().manual_seed(3)
        self.tensors = {"base": torch.randn(SHAPE, generator=generator)}
        for expert in range(experts):
            self.tensors[f"e{expert}"] = self.tensors["base"] + torch.randn(SHAPE, generator=generator)
        density = 0.6 if operator.takes_density else 1.0
        self.blend = Blend(
            operator=operator,
            base=Source(parent="base") if operator.needs_base else None,
            sources=tuple(Source(parent=f"e{expert}", density=density) for expert in range(experts)),
        )
        self._merger = partial(
            Merger, lambda name, _, __: self.tensors[name].view(-1), lambda one, _, s: len(one.parent) * 7 + s, CPU
        )

    def merged(self, blend: Blend, fine: Fine | None = None, *, compiled: bool = False) -> torch.Tensor:
        out = torch.empty(SHAPE)
        self._merger(compiled=compiled).write(Job(blend, "t", out.view(-1), torch.float32, 5, fine))
        return out


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("experts", [1, 3, 6])
def test_a_column_is_what_a_merge_with_its_weights_makes_of_it(
    experts: int, kind: str, grain: FineGrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(merger.CHUNK, "cpu", 50)
    bench = Bench(CASES[kind], experts)
    count = SHAPE[1] if grain == "column" else SHAPE[0]
    values = np.random.default_rng(1).uniform(-0.5, 1.5, (experts, count)).astype(np.float32)
    fine = bench.merged(bench.blend, Fine(grain, values, SHAPE[1]))
    for place in range(count):
        alone = bench.merged(bench.blend.with_coefficients(tuple(map(float, values[:, place]))))
        mine, its = (each[:, place] if grain == "column" else each[place] for each in (fine, alone))
        if "normalised" in kind or CASES[kind].scale != 1.0:
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(mine, its)


@pytest.mark.parametrize(("kind", "grain"), [("ties, normalised", "column"), ("dare_ties", "row")])
def test_compiled_kernels_give_the_same_bits(kind: str, grain: FineGrain) -> None:
    bench = Bench(CASES[kind])
    count = SHAPE[1] if grain == "column" else SHAPE[0]
    fine = Fine(grain, np.random.default_rng(1).uniform(-0.5, 1.5, (3, count)).astype(np.float32), SHAPE[1])
    assert torch.equal(bench.merged(bench.blend, fine), bench.merged(bench.blend, fine, compiled=True))


def test_every_operator_with_weights_has_a_case() -> None:
    assert {operator.kind for operator in CASES.values()} == {*kinds_of(Operator)} - {"slerp"}


@pytest.mark.parametrize("normalize", [True, False])
def test_ties_by_column_is_its_formula(normalize: bool) -> None:
    bench = Bench(Ties(normalize=normalize))
    values = np.random.default_rng(2).uniform(0.1, 1.5, (3, SHAPE[1])).astype(np.float32)
    base = bench.tensors["base"].numpy().astype(np.float64)
    deltas = np.stack([bench.tensors[f"e{i}"].numpy().astype(np.float64) - base for i in range(3)])
    kept = int(0.6 * base.size)
    floors = np.sort(np.abs(deltas).reshape(3, -1))[:, -kept]
    parts = np.where(np.abs(deltas) >= floors[:, None, None] - 1e-9, deltas, 0.0) * values[:, None, :]
    sign = np.where(parts.sum(0) >= 0, 1.0, -1.0)
    agree = parts * sign > 0
    divisor = (agree * values[:, None, :]).sum(0) if normalize else np.ones(SHAPE)
    expected = base + (parts * agree).sum(0) / np.where(divisor == 0, 1.0, divisor)
    np.testing.assert_allclose(
        bench.merged(bench.blend, Fine("column", values, SHAPE[1])), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("grain", ["tensor", *GRAINS])
def test_a_model_is_the_sum_that_a_hand_makes(grain: Grain, files: ParentFiles) -> None:
    recipe = start(files)
    coefficients = drawn(recipe, files, grain)
    refined = recipe.refined(coefficients)
    made = weights(files, refined, None if grain == "tensor" else coefficients)
    for name, values in coefficients.arrays.items():
        base, *experts = (stored(files, parent, name) for parent in ("base", *EXPERTS))
        total = base.copy()
        for expert, weight in zip(experts, values, strict=True):
            spread = weight.reshape(-1, 1) if grain == "row" and len(weight) > 1 else weight
            total += (spread * (expert - base).reshape(-1, base.shape[-1])).reshape(base.shape)
        np.testing.assert_allclose(made[name], total.astype(np.float16), rtol=2e-3, atol=1e-5)


def test_equal_weights_by_tensor_change_nothing(files: ParentFiles) -> None:
    recipe = start(files, "ties")
    plain = weights(files, recipe)
    same = weights(files, recipe.refined(Shares(recipe, files.anatomy).coefficients(None)))
    assert all(torch.equal(plain[name], tensor) for name, tensor in same.items())


def test_slerp_takes_a_t_for_each_tensor(files: ParentFiles) -> None:
    recipe = start(files, "slerp")
    name = next(iter(files.anatomy.inside[2]))
    other = recipe.layers[0].blend.with_coefficients((0.25,)).operator
    layer = recipe.layers[2].model_copy(update={"blend": recipe.layers[2].blend.model_copy(update={"operator": other})})
    expected = weights(files, recipe.model_copy(update={"layers": (*recipe.layers[:2], layer, *recipe.layers[3:])}))
    made = weights(files, recipe.model_copy(update={"tensors": {name: (0.25,)}}))
    assert torch.equal(made[name], expected[name])
    plain = weights(files, recipe)
    assert all(torch.equal(made[other], plain[other]) for other in made if other != name)


@pytest.mark.parametrize("grain", ["tensor", *GRAINS])
def test_only_tensors_with_other_weights_are_merged_anew(grain: Grain, files: ParentFiles) -> None:
    recipe, live = start(files), LiveModel(files, CPU)
    first = drawn(recipe, files, grain)
    name = f"{files.anatomy.stack}.1.mlp.up_proj.weight"
    second = Coefficients(grain, {**first.arrays, name: first.arrays[name] + np.float32(0.1)})
    counts = []
    for coefficients in (first, first, second, first):
        counts.append(live.load(recipe.refined(coefficients), None if grain == "tensor" else coefficients))
    assert counts == [len(files.anatomy.places), 0, 1, 1]
    assert live.load(recipe) == len(files.anatomy.places)
    plain = weights(files, recipe)
    assert all(torch.equal(plain[key], tensor) for key, tensor in live.model.state_dict().items())


@pytest.mark.parametrize("grain", ["tensor", *GRAINS])
def test_layers_are_run_again_where_weights_differ(grain: Grain, files: ParentFiles) -> None:
    live = LiveModel(files, CPU, reuse=1 << 26)
    recipe = start(files)
    inputs = {"input_ids": TOKENS, "use_cache": False}
    first = drawn(recipe, files, grain)
    stack = files.anatomy.stack
    for layer in (5, 3, 0, None):
        name = f"{stack}.{layer}.mlp.up_proj.weight" if layer is not None else next(iter(files.anatomy.outside))
        other = Coefficients(grain, {**first.arrays, name: first.arrays[name] + np.float32(0.5)})
        for coefficients in (first, other):
            live.load(recipe.refined(coefficients), None if grain == "tensor" else coefficients)
            reused = live.prefix.reused
            ours = live.forward("one", inputs).logits
            assert torch.equal(ours, live.model(**inputs).logits)
        if layer == 3:
            assert live.prefix.reused - reused == 3


@pytest.mark.parametrize("family", ["qwen2_moe", "gpt2", "gemma2"])
@pytest.mark.parametrize("grain", GRAINS)
def test_the_folder_is_the_resident_model(family: str, grain: FineGrain, tmp_path: Path) -> None:
    paths = make_family(family, tmp_path)
    opened = open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)
    recipe = start(opened, "ties")
    moved = recipe.model_copy(update={"layers": (recipe.layers[0], *recipe.layers)}) if family == "gpt2" else recipe
    refined = kept(moved, drawn(moved, opened, grain), tmp_path)
    export_recipe(refined, opened, tmp_path / "out")
    live = LiveModel(opened, CPU)
    live.load(refined)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ours, theirs = (model(input_ids=TOKENS, use_cache=False).logits for model in (live.model, stock))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grain", ["tensor", *GRAINS])
def test_a_recipe_with_its_own_weights_can_be_a_parent(grain: Grain, files: ParentFiles, tmp_path: Path) -> None:
    recipe = start(files)
    coefficients = drawn(recipe, files, grain)
    refined = recipe.refined(coefficients) if grain == "tensor" else kept(recipe, coefficients, tmp_path)
    export_recipe(refined, files, tmp_path / "mix")
    made = []
    for source in (refined, str(tmp_path / "mix")):
        opened = open_parents(str(DEMO_MODELS / "base"), {"maths": EXPERTS["maths"], "mix": source}, 0)
        made.append(weights(opened, start(opened)))
    assert all(torch.equal(made[0][name], tensor) for name, tensor in made[1].items())


def changed(
    name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> Callable[[Coefficients], Coefficients]:
    return lambda whole: Coefficients(whole.grain, {**whole.arrays, name: change(whole.arrays[name])})


UP = "model.layers.1.mlp.up_proj.weight"
WRONG: list[tuple[Callable[[Coefficients], Coefficients], str]] = [
    (changed(UP, lambda array: array[:, :-1]), rf"{UP} has \d+ numbers a source; give \d+, columns of the tensor"),
    (changed(UP, lambda array: array[:1]), rf"{UP} has numbers for 1 sources; give 2, one for each"),
    (changed(UP, lambda array: array * np.float32(1e9)), rf"{UP} has a weight of .*; give 1e\+06 or less"),
    (
        lambda whole: Coefficients(whole.grain, {"model.layers.99.x": whole.arrays[UP]}),
        "model.layers.99.x is no tensor",
    ),
    (lambda whole: Coefficients("row", whole.arrays), "has coefficients by row, the recipe says column"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_coefficients_that_do_not_fit_are_refused(
    change: Callable[[Coefficients], Coefficients], said: str, files: ParentFiles, tmp_path: Path
) -> None:
    recipe = start(files)
    coefficients = change(drawn(recipe, files, "column"))
    named = kept(recipe, coefficients, tmp_path)
    assert named.arrays is not None
    named = named.model_copy(update={"arrays": named.arrays.model_copy(update={"grain": "column"})})
    with pytest.raises(SpecError, match=said):
        Shares(named, files.anatomy)
    with pytest.raises(SpecError, match=said):
        LiveModel(files, CPU).load(named, coefficients)


SOME = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("tensors", "operator", "said"),
    [
        ({"model.layers.9.up": (0.5, 0.5)}, "ties", "tensors.model.layers.9.up is no tensor of the merged model"),
        ({SOME: (0.5,)}, "ties", f"tensors.{SOME} has numbers for 1 sources; give 2, one for each source of its blend"),
        ({SOME: (0.5, 0.5)}, "slerp", f"tensors.{SOME} has numbers for 2 sources; give 1, slerp's t"),
        ({SOME: (0.5, -0.5)}, "linear", f"tensors.{SOME} sums to 0, and normalize divides by that"),
    ],
)
def test_weights_by_tensor_that_do_not_fit_are_refused(
    tensors: dict[str, Sequence[float]], operator: str, said: str, files: ParentFiles
) -> None:
    with pytest.raises(SpecError, match=said):
        Shares(start(files, operator).model_copy(update={"tensors": tensors}), files.anatomy)


def test_a_tensor_has_one_set_of_weights(files: ParentFiles, tmp_path: Path) -> None:
    recipe = start(files)
    refined = kept(recipe, drawn(recipe, files, "column"), tmp_path).model_copy(update={"tensors": {SOME: (0.5, 0.5)}})
    with pytest.raises(SpecError, match="is in tensors of the recipe too"):
        Shares(refined, files.anatomy)


def test_coefficients_are_those_that_the_recipe_names(files: ParentFiles) -> None:
    recipe = start(files)
    one, other = (drawn(recipe, files, "column", seed) for seed in (0, 1))
    with pytest.raises(SpecError, match="has another digest than the coefficients that came with the recipe"):
        Shares(recipe.refined(one), files.anatomy, other)
    with pytest.raises(SpecError, match="arrays is missing"):
        Shares(recipe, files.anatomy, one)
    with pytest.raises(SpecError, match="cannot be read"):
        Shares(
            recipe.model_copy(update={"arrays": Arrays(path="/none", digest=one.digest(), grain="column")}),
            files.anatomy,
        )


def test_weights_are_taken_over_into_another_grain(files: ParentFiles) -> None:
    recipe = start(files)
    plain = weights(files, recipe)
    for grain in GRAINS:
        coefficients = Shares(recipe, files.anatomy).coefficients(grain)
        made = weights(files, recipe.refined(coefficients), coefficients)
        assert all(torch.equal(plain[name], tensor) for name, tensor in made.items())
        back = Shares(recipe.refined(coefficients), files.anatomy, coefficients).coefficients(None)
        assert all((array == np.float32(0.5 * 1.5)).all() for array in back.arrays.values())
