"""Data-flow searches by the command line: planted paths, paths of the demo's models, joint ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS, ROOT, Typed, small_fitness
from families import make_family
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


@pytest.mark.parametrize(("optimizer", "seed"), [("cma", 7), ("nsga2", 3)])
def test_a_planted_path_is_found(
    optimizer: str, seed: int, scattered: dict[str, str], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    """23 slots, 4 of them right: what the whole model scores is found back, on the search's items and on others."""
    run = tmp_path / "RUN"
    path = run_file(
        models={"experts": scattered},
        space={"kind": "path", "anchor": "one", "repeats": 2},
        fitness=LISTS,
        optimizer=optimizer,
        budget={"evaluations": 300},
        seed=seed,
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


@pytest.mark.parametrize(
    "space",
    [
        {"kind": "path", "anchor": "japanese", "scale": [0.5, 1.5], "depth": [4, 9]},
        {"kind": "joint", "blend": {}, "path": {"kind": "path", "scale": [0.7, 1.3], "depth": [5, 8]}},
    ],
    ids=["path", "joint"],
)
def test_what_is_exported_is_what_was_searched(
    space: dict[str, object], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    """The exported folder, loaded by itself, gets the marks that the search gave the candidate."""
    run, fitness = tmp_path / "RUN", small_fitness("lists", search=24, confirm=24) | {"estimator": {"items": "all"}}
    fitness["objectives"]["size"] = {"cost": "parameters"}  # type: ignore[index]
    found = cli("search", run_file(space=space, fitness=fitness, budget={"evaluations": 30}), "--out", run)
    assert found.status == 0, found.err
    results = load(run)
    depths = {number: len(results.recipe(number).layers) for number in results.state.counted()}
    number = next(n for n in reversed(depths) if depths[n] != 6 and set(results.recipe(n).gains()) != {1.0})
    exported = cli("export", run, "--pick", f"number:{number}", "--out", tmp_path / "MODEL")
    assert exported.status == 0, exported.err
    assert "scales are folded" in exported.out
    assert json.loads((tmp_path / "MODEL/config.json").read_text())["num_hidden_layers"] == depths[number]
    (tmp_path / "fitness.yaml").write_text(json.dumps(fitness))
    for model in (tmp_path / "MODEL", tmp_path / "MODEL/recipe.yaml"):
        scored = cli("score", model, "--fitness", tmp_path / "fitness.yaml", "--items", "search", "--json")
        values = json.loads(scored.out)["objectives"]
        searched = results.rows[number].search
        assert searched is not None
        assert abs(values["lists"][0] - searched["lists"][0]) <= 1 / 24, "rounding may turn an item"
        assert values["size"][0] == searched["size"][0]
    assert "Scales are folded" in (tmp_path / "MODEL/README.md").read_text()
    assert cli("report", run, "--out", tmp_path / "page.html").status == 0


def test_scales_are_refused_where_a_class_cannot_have_them(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    paths = make_family("olmo2", tmp_path, vocab_size=521)
    models = {"experts": {"one": str(paths["one"]), "two": str(paths["two"])}}
    plain = {"kind": "path", "repeats": 1}
    refused = run_file(models=models, space=plain | {"scale": [0.5, 1.5]})
    for command in (["plan", refused], ["search", refused, "--out", tmp_path / "RUN"]):
        found = cli(*command)
        assert found.status == 2
        assert "Olmo2ForCausalLM" in found.err
        assert "scale" in found.err
        assert not (tmp_path / "RUN").exists()
    fine = run_file(models=models, space=plain, budget={"evaluations": 8})
    found = cli("search", fine, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    assert cli("export", tmp_path / "RUN", "--out", tmp_path / "M").status == 0


def test_layers_that_cannot_be_moved_are_refused_before_anything_is_searched(
    cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    """GPT-2 may weigh attention by the layer's number, which no config can say of a layer that moved."""
    paths = make_family("gpt2", tmp_path, vocab_size=521, scale_attn_by_inverse_layer_idx=True)
    models = {"experts": {"one": str(paths["one"]), "two": str(paths["two"])}}
    path = run_file(models=models, space={"kind": "path", "repeats": 1})
    for command in (["plan", path], ["search", path, "--out", tmp_path / "RUN"]):
        found = cli(*command)
        assert found.status == 2
        assert "cannot have its layers in another order" in found.err
        assert not (tmp_path / "RUN").exists()


def by_hand(folder: Path, *layers: tuple[int, float]) -> str:
    """A recipe file over the maths expert without any digest."""
    recipe = {
        "parents": {"m": {"path": str(DEMO_MODELS / "maths")}},
        "template": "m",
        "dtype": "float16",
        "layers": [
            {"blend": {"sources": [{"parent": "m", "layer": layer}]}, "scale": scale} for layer, scale in layers
        ],
        "outer": {group: {"sources": [{"parent": "m"}]} for group in ("embeddings", "norm")},
    }
    (folder / "by-hand.yaml").write_text(json.dumps(recipe))
    return "by-hand.yaml"


def test_a_recipe_written_by_hand_is_where_a_search_begins(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    """Without digests its folders are known by their paths."""
    start = by_hand(tmp_path, (0, 1.0), (1, 1.0), (1, 1.0), (4, 1.0), (5, 1.0))
    path = run_file(space={"kind": "path", "anchor": "maths"}, start=[start], budget={"evaluations": 6})
    found = cli("search", path, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err
    results = load(tmp_path / "RUN")
    assert any(results.recipe(number).origins() == (0, 1, 1, 4, 5) for number in results.state.counted()[:3])


def test_scales_that_no_weights_bear_fail_the_candidate_and_nothing_else(
    cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    start = by_hand(tmp_path, (0, 1.0), (1, 0.05), (2, 0.05), (4, 0.05), (5, 1.0))
    merged = cli("merge", tmp_path / start, "--out", tmp_path / "M")
    assert merged.status == 2
    assert "multiply to 0.000125" in merged.err
    assert not (tmp_path / "M").exists()
    space = {"kind": "path", "anchor": "maths", "scale": [0.05, 1.5]}
    run = tmp_path / "RUN"
    found = cli("search", run_file(space=space, start=[start], budget={"evaluations": 8}), "--out", run)
    assert found.status == 0, found.err
    (failure,) = json.loads(cli("show", run, "--json").out)["failures"]
    assert failure["stage"] == "merge"
    assert "multiply to 0.000125" in failure["reason"]


def test_the_two_stages_of_the_literature(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    """Coefficients, then a path over what they made, as one run file; the last winner is a parent for another run."""
    run = tmp_path / "RUN"
    found = cli("search", run_file(space="two-stage", budget={"evaluations": 40}), "--out", run)
    assert found.status == 0, found.err
    path = load(run)
    assert path.file.parents.experts == ("maths", "japanese", "coefficients 1")
    first = load(run / "1-coefficients")
    assert first.best is not None
    assert path.file.parents.models["coefficients 1"].content() == first.best.recipe
    names = [row.name for row in path.baselines]
    assert "coefficients 1" in names
    assert cli("export", run, "--out", tmp_path / "MODEL").status == 0
    again = run_file(
        "again.yaml", models={"experts": {"staged": str(run), "maths": str(DEMO_MODELS / "maths")}}, space="slerp"
    )
    found = cli("plan", again)
    assert path.best is not None
    depth = len(path.recipe(path.best.number).layers)
    assert found.status == (0 if depth == 6 else 2), found.err
    assert depth == 6 or f"'staged' has {depth} layers" in found.err
