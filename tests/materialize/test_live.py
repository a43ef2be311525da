"""The resident model: only what changed is merged anew, and history leaves no trace."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS
from families import make_family

from evomerge.assemble import load
from evomerge.canary import canary
from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import RunError
from evomerge.materialize import LiveModel, Merger, Needs, Placement, place_parents
from evomerge.recipe import Recipe
from evomerge.space import BlendSpec, bind, fixed_recipes, unchanged

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    return open_parents(str(DEMO_MODELS / "base"), experts, 0)


def random_recipes(files: ParentFiles, operator: str, count: int) -> list[Recipe]:
    density = ', "density": [0.2, 1.0]' if operator in ("ties", "dare_ties") else ""
    space = bind(BlendSpec.model_validate_json(f'{{"operator": "{operator}"{density}}}'), files.parents)
    rng = random.Random(1)
    return [space.decode(tuple(rng.random() for _ in space.genes)) for _ in range(count)]


def weights(live: LiveModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


@pytest.mark.parametrize("operator", ["linear", "slerp", "task_arithmetic", "ties", "dare_ties"])
def test_what_was_loaded_before_leaves_no_trace(operator: str, files: ParentFiles) -> None:
    live = LiveModel(files, CPU)
    recipes = random_recipes(files, operator, 4)
    first = []
    for recipe in recipes:
        live.load(recipe)
        first.append(weights(live))
    for recipe, before in reversed(list(zip(recipes, first, strict=True))):
        live.load(recipe)
        assert all(torch.equal(before[name], tensor) for name, tensor in live.model.state_dict().items())
    fresh = LiveModel(files, CPU)
    fresh.load(recipes[2])
    assert all(torch.equal(first[2][name], tensor) for name, tensor in fresh.model.state_dict().items())


def test_only_what_changed_is_merged(files: ParentFiles) -> None:
    live = LiveModel(files, CPU)
    space = bind(BlendSpec(), files.parents)
    genome = (0.5,) * len(space.genes)
    assert live.load(space.decode(genome)) == len(files.anatomy.places)
    assert live.load(space.decode(genome)) == 0
    gene = [g.name for g in space.genes].index("maths.layers.3.weight")
    moved = (*genome[:gene], 0.7, *genome[gene + 1 :])
    assert live.load(space.decode(moved)) == sum(place.layer == 3 for place in files.anatomy.places.values())


def test_a_merge_that_fails_half_way_is_not_taken_for_done(files: ParentFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(files, CPU)
    one, two = random_recipes(files, "task_arithmetic", 2)
    live.load(one)
    plain = Merger.write
    calls = {"left": 20}

    def failing(self: Merger, *arguments: object) -> None:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise torch.OutOfMemoryError
        plain(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(Merger, "write", failing)
        live.load(two)
    live.load(one)
    fresh = LiveModel(files, CPU)
    fresh.load(one)
    assert all(torch.equal(tensor, weights(fresh)[name]) for name, tensor in live.model.state_dict().items())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_carry_the_rounding_of_their_dtype(dtype: str, tmp_path: Path) -> None:
    paths = make_family("llama", tmp_path, dtype=dtype)
    opened = open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)
    live = LiveModel(opened, CPU)
    live.load(random_recipes(opened, "ties", 1)[0])
    for tensor in live.model.state_dict().values():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensor.to(getattr(torch, dtype)).float())


def test_parents_are_exact_members_of_every_family_of_recipes(files: ParentFiles) -> None:
    """Weight one of one expert, weights zero, t at an end: copies, not almost copies."""
    live = LiveModel(files, CPU)
    for name in ("base", "maths"):
        stored = {
            key: files.checkpoints[name].tensor(files.accounts[name].read[key]).float() for key in files.anatomy.places
        }
        for operator in ("task_arithmetic", "ties", "dare_ties", "linear", "slerp"):
            space = bind(BlendSpec.model_validate_json(f'{{"operator": "{operator}"}}'), files.parents)
            if name == "base" and operator in ("linear", "slerp"):
                continue
            live.load(space.decode(space.encode(unchanged(files.parents, name))))
            state = live.model.state_dict()
            assert all(torch.equal(state[key], stored[key]) for key in stored), (name, operator)


def test_the_canary_sings_and_dies(files: ParentFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveModel(files, CPU)
    canary(live)
    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "load", lambda self, recipe: 0)
        with pytest.raises(RunError, match="same logits"):
            canary(live)
    plain = LiveModel.load

    calls = {"count": 0}

    def drifting(self: LiveModel, recipe: Recipe) -> int:
        calls["count"] += 1
        fresh = plain(self, recipe)
        self._outer["model.norm.weight"].mul_(1 + 0.001 * calls["count"])
        return fresh

    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "load", drifting)
        with pytest.raises(RunError, match="gives other logits"):
            canary(live)


def test_placement_is_chosen_by_size() -> None:
    seven = 2 * 7_600_000_000
    card, host = 80 * 10**9, 500 * 10**9
    four, three = (Needs(parents=n * seven, pinned=n * seven * 3 // 2, live=seven) for n in (4, 3))
    assert place_parents(four, "cpu", (0, 0)).where == "mapped"
    three_and_base = place_parents(four, "cuda", (card, host))
    assert three_and_base.where == "streamed"
    assert three_and_base.pinned
    assert "pinned in host memory" in three_and_base.reason
    assert not place_parents(four, "cuda", (card, 30 * 10**9)).pinned
    assert not place_parents(four, "cuda", (card, 80 * 10**9)).pinned, "pinned memory comes in powers of two"
    assert place_parents(three, "cuda", (card, host)).where == "device"
    assert place_parents(four, "cuda", (140 * 10**9, host)).where == "device"


def test_needs_are_those_of_the_parents_as_they_are_stored(tmp_path: Path) -> None:
    wide, narrow = (make_family("llama", tmp_path / d, ("base", "one"), dtype=d) for d in ("float32", "bfloat16"))
    mixed = open_parents(str(narrow["base"]), {"one": str(wide["one"])}, 0)
    needs = Needs.of(mixed, 2)
    assert needs.parents == (2 + 4) * mixed.anatomy.parameters
    assert needs.parents <= needs.pinned < 2 * needs.parents
    assert needs.live == 2 * mixed.anatomy.parameters


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("where", ["device", "streamed"])
@pytest.mark.parametrize("operator", ["task_arithmetic", "ties", "dare_ties", "linear", "slerp"])
def test_a_gpu_merges_what_a_cpu_merges(
    where: str, operator: str, files: ParentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.materialize import live as module

    placement = Placement.model_validate({"where": where, "pinned": where == "streamed", "reason": "test"})
    monkeypatch.setattr(module, "placement_for", lambda *_: placement)
    recipe = random_recipes(files, operator, 1)[0]
    on_cpu = LiveModel(files, CPU)
    on_cpu.load(recipe)
    for compiled in (False, True):
        on_gpu = LiveModel(files, torch.device("cuda"), compiled=compiled)
        on_gpu.load(recipe)
        for name, tensor in on_gpu.model.state_dict().items():
            torch.testing.assert_close(tensor.cpu().float(), weights(on_cpu)[name], rtol=2e-3, atol=1e-6)


def test_where_nothing_compiles_merging_goes_the_slow_way_and_says_so(
    run_file: Callable[..., Path], tmp_path: Path
) -> None:
    script = "from evomerge.materialize import live; live.WORTH_COMPILING = 0; from evomerge.cli import main; main()"
    run = run_file(budget={"evaluations": 6})
    done = subprocess.run(
        [sys.executable, "-c", script, "search", str(run), "--out", str(tmp_path / "RUN")],
        env=os.environ | {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "merging is several times slower than it could be: torch cannot compile here" in done.stderr
    results = load(tmp_path / "RUN")
    assert len(results.state.finished()) == 6
    assert not results.to_json()["failures"]


def test_where_kernels_compile_nothing_is_said(files: ParentFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.materialize import live as module

    plain = LiveModel(files, CPU)
    monkeypatch.setattr(module, "WORTH_COMPILING", 0)
    compiled = LiveModel(files, CPU)
    assert compiled.merger.compiled
    assert not compiled.notes
    recipe = random_recipes(files, "ties", 1)[0]
    for live in (plain, compiled):
        live.load(recipe)
    assert all(torch.equal(tensor, weights(plain)[name]) for name, tensor in compiled.model.state_dict().items())


def test_fixed_recipes_load(files: ParentFiles) -> None:
    live = LiveModel(files, CPU)
    for recipe in fixed_recipes(files.parents).values():
        live.load(recipe)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in live.model.state_dict().values())
