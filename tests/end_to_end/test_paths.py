"""Data-flow searches by the command line: planted paths, paths of the demo's models, joint ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS, ROOT, Typed, small_fitness
from safetensors.torch import load_file, save_file
from torch import Tensor

from evomerge.assemble import load

Cli = Callable[..., Typed]
Write = Callable[..., Path]
LISTS = {
    "include": [str(ROOT / "fitness/demo")],
    "objectives": {"lists": {"task": "lists", "metric": "acc", "tie_break": {"metric": "perplexity", "weight": 0.05}}},
    "items": {"search": 192, "confirm": 300},
    "estimator": {"kind": "mean", "items": "all"},
}


def layers_of(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    names = [[name for name in weights if f".layers.{i}." in name] for i in range(6)]
    return [{name.split(f".layers.{i}.")[1]: weights[name] for name in names[i]} for i in range(6)]


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The lists expert's layers, out of order, over two models that are noise otherwise."""
    folder = tmp_path_factory.mktemp("scattered")
    whole = load_file(DEMO_MODELS / "lists/model.safetensors")
    layers = layers_of(whole)
    generator = torch.Generator().manual_seed(0)

    def noise() -> dict[str, Tensor]:
        return {
            name: tensor
            if tensor.ndim == 1
            else (torch.randn(tensor.shape, generator=generator) * tensor.float().std()).to(tensor.dtype)
            for name, tensor in layers[2].items()
        }

    order: dict[str, list[int | None]] = {"one": [0, 4, 1, None, None, 5], "other": [None, 2, None, 3, None, None]}
    for name, places in order.items():
        weights = {key: value for key, value in whole.items() if ".layers." not in key}
        for place, number in enumerate(places):
            layer = noise() if number is None else layers[number]
            weights |= {f"model.layers.{place}.{key}": value.clone() for key, value in layer.items()}
        shutil.copytree(DEMO_MODELS / "lists", folder / name)
        save_file(weights, folder / name / "model.safetensors", metadata={"format": "pt"})
    return {name: str(folder / name) for name in order}


@pytest.mark.parametrize("optimizer", ["cma", "nsga2"])
def test_a_planted_path_is_found(
    optimizer: str, scattered: dict[str, str], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    """23 slots, 4 of them right: what the whole model scores is found back, on the search's items and on others."""
    run = tmp_path / "RUN"
    path = run_file(
        models={"experts": scattered},
        space={"kind": "path", "anchor": "one", "repeats": 2},
        fitness=LISTS,
        optimizer=optimizer,
        budget={"evaluations": 350},
    )
    found = cli("search", path, "--out", run)
    assert found.status == 0, found.err
    shown = json.loads(cli("show", run, "--json").out)
    best = next(row for row in shown["front"] if row["number"] == shown["best"])
    (tmp_path / "fitness.yaml").write_text(json.dumps(LISTS))
    for which, items in (("search", "search"), ("confirmed", "confirm")):
        whole = cli("score", DEMO_MODELS / "lists", "--fitness", tmp_path / "fitness.yaml", "--items", items, "--json")
        value = json.loads(whole.out)["objectives"]["lists"][0]
        assert best[which]["lists"][0] >= value - 0.01, which
    assert all(row["confirmed"]["lists"][0] < 0.5 for row in shown["baselines"])
    hops = [layer.blend.sources[0] for layer in load(run).recipe(shown["best"]).layers]
    right = iter([("one", 0), ("one", 2), ("other", 1), ("other", 3), ("one", 1), ("one", 5)])
    wanted = next(right)
    for hop in hops:  # Layers of noise may stand between them; what does no harm is no fault.
        wanted = next(right, None) if (hop.parent, hop.layer) == wanted else wanted
    assert wanted is None, hops
