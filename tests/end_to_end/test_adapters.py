"""Adapters as experts, by the command line: planned, searched over, exported, and what mergekit makes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from adapters import trained
from conftest import DEMO_MODELS, ROOT, Typed
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
from safetensors.torch import load_file

from evomerge.assemble import load

Cli = Callable[..., Typed]
BASE = DEMO_MODELS / "base"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of the demo's base, of different ranks and over different modules."""
    folder, settings = (
        tmp_path_factory.mktemp("adapters"),
        {"one": (4, "all-linear"), "two": (8, ["q_proj", "down_proj"])},
    )
    return {
        name: trained(BASE, folder / name, r=rank, target_modules=modules, size=0.03)
        for name, (rank, modules) in settings.items()
    }


def test_adapters_are_experts_from_plan_to_export(
    adapters: dict[str, Path], run_file: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    experts = {name: str(path) for name, path in adapters.items()} | {"maths": str(DEMO_MODELS / "maths")}
    models = {"base": str(BASE), "experts": experts}
    path = run_file(models=models, optimizer="random", space={"groups": "model", "weight": [0.3, 1.0]})
    plan = cli("plan", path)
    assert plan.status == 0, plan.err
    assert f"one: {adapters['one']} (an adapter of rank 4, 38,400 weights of its own)" in plan.out
    run, model = tmp_path / "RUN", tmp_path / "M"
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    number = max(load(run).state.candidates)
    found = cli("export", run, "--pick", f"number:{number}", "--out", model)
    assert found.status == 0, found.err
    for source in ("recipe.yaml", "mergekit.yml"):
        again = cli("merge", model / source, "--out", tmp_path / source)
        assert again.status == 0, again.err
        ours, theirs = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / source))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = yaml.safe_load((model / "mergekit.yml").read_text())
    options = MergeOptions(quiet=True, lora_merge_cache=str(tmp_path / "cache"), lora_merge_dtype="float32")
    run_merge(MergeConfiguration.model_validate(plain), str(tmp_path / "theirs"), options)
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor.float(), theirs[name].float(), rtol=2e-3, atol=2e-4)


def test_weights_of_adapters_are_learned(
    adapters: dict[str, Path], run_file: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    models = {"base": str(BASE), "experts": {name: str(path) for name, path in adapters.items()}}
    space, optimizer = {"groups": "model", "grain": "tensor"}, {"kind": "gradient", "held": 8}
    fitness = {
        "include": [str(ROOT / "fitness/demo")],
        "objectives": {"math_ja": {"task": "math_ja", "metric": "acc"}},
        "items": {"search": 24, "confirm": 12, "group": "group"},
    }
    budget = {"item_evaluations": 700}
    path = run_file(models=models, space=space, fitness=fitness, optimizer=optimizer, budget=budget)
    run = tmp_path / "RUN"
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    results = load(run)
    looks = results.state.learned
    assert min(look.losses["math_ja"] for look in looks) < looks[0].losses["math_ja"]
    out = tmp_path / "A"
    (number,) = (n for n, asked in results.state.candidates.items() if asked.tradeoff is not None)
    pick = ("--pick", f"number:{number}")
    found = cli("export", run, *pick, "--format", "adapter", "--rank", "2", "--out", out)
    assert found.status == 0, found.err
    assert "an adapter of rank 2: of what the merge adds to matrices it lacks" in found.out
    assert "math_ja: the adapter has" in found.out
    files = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.yaml"} <= files
    again = cli("export", run, *pick, "--format", "adapter", "--out", tmp_path / "B")
    assert again.status == 0, again.err
    assert "an adapter of rank 12, which is the whole merge" in again.out
    both = cli("export", run, "--format", "adapter", "--format", "model", "--out", tmp_path / "C")
    assert (both.status, "a folder holds a model or an adapter" in both.err) == (2, True)
