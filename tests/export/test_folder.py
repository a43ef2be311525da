"""What is said of a recipe that moves or scales layers, and that it can be made again."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import DEMO_MODELS, Typed
from families import make_family
from paths import path, random_path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.assemble import load
from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.checkpoint import write as writing
from evomerge.export import export_recipe, export_run, rounding
from evomerge.export.card import model_card
from evomerge.export.recipe_table import recipe_table
from evomerge.export.to_mergekit import caveats
from evomerge.recipe import Blend, Layer, Source
from evomerge.results import Results

Cli = Callable[..., Typed]
STEPS = [("maths", 0), ("maths", 1), ("maths", 2), ("japanese", 2), ("japanese", 3), ("maths", 2), ("japanese", 5)]
SCALES = [1.0, 0.85, 1.0, 1.3, 1.0, 1.0, 1.1]


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    return open_parents(str(DEMO_MODELS / "base"), experts, 0)


def test_what_rounding_folded_scales_costs_is_measured(files: ParentFiles, tmp_path: Path) -> None:
    (remark,) = export_recipe(path(files, STEPS, SCALES), files, tmp_path / "half")
    found = re.fullmatch(
        r"scales are folded into float16 weights: logits differ .* at most (\S+) of their range", remark
    )
    assert found
    assert 1e-6 < float(found[1]) < 0.01
    assert not export_recipe(path(files, STEPS), files, tmp_path / "unscaled")
    whole = path(files, STEPS, SCALES).model_copy(update={"dtype": "float32"})
    assert not export_recipe(whole, files, tmp_path / "whole")


def test_what_takes_too_much_memory_to_measure_is_said_to_be_unmeasured(
    files: ParentFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "SHARE", 0.0)
    (remark,) = export_recipe(path(files, STEPS, SCALES), files, tmp_path / "half")
    assert "was not measured" in remark


def test_a_written_recipe_of_a_path_merges_to_the_same_bytes(files: ParentFiles, cli: Cli, tmp_path: Path) -> None:
    export_recipe(random_path(files, 8, 2), files, tmp_path / "once")
    found = cli("merge", tmp_path / "once/recipe.yaml", "--out", tmp_path / "again")
    assert found.status == 0, found.err
    for name in ("model.safetensors", "config.json", "recipe.yaml"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_deep_models_are_written_in_shards(files: ParentFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = random_path(files, 12, 4)
    export_recipe(recipe, files, tmp_path / "whole")
    monkeypatch.setattr(writing, "SHARD_BYTES", 300_000)
    export_recipe(recipe, files, tmp_path / "cut")
    whole = load_file(tmp_path / "whole/model.safetensors")
    index = json.loads((tmp_path / "cut/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.items())
    reread = open_parents(None, {"cut": str(tmp_path / "cut")}, 0)
    assert reread.parents.layers == 12


def test_the_card_shows_a_path_as_runs_of_layers(files: ParentFiles, finished: dict[str, Path]) -> None:
    recipe = path(files, STEPS, SCALES, ("maths", "japanese"))
    assert recipe_table(recipe).splitlines()[2:6] == [
        "| 0-2 | maths | 0-2 | 1, 0.85, 1 |",
        "| 3-4 | japanese | 2-3 | 1.3, 1 |",
        "| 5 | maths | 2 | 1 |",
        "| 6 | japanese | 5 | 1.1 |",
    ]
    assert "scale" not in recipe_table(path(files, STEPS))
    results = load(finished["one"])
    card = model_card(results, results.pick("best"), recipe, Path("OUT"), note="scales are folded")
    assert recipe_table(recipe) in card
    assert "Scales are folded." in card


def test_the_card_says_which_layers_of_parents_are_blended(files: ParentFiles) -> None:
    sources = (Source(parent="maths", layer=3, weight=0.7), Source(parent="japanese", layer=1, weight=0.3))
    plain = path(files, [("maths", 0), ("japanese", 2)], outer=("maths", "maths"))
    blended = Layer(blend=Blend(sources=sources), scale=0.8)
    table = recipe_table(plain.model_copy(update={"layers": (plain.layers[0], blended)}))
    assert "| layer 0 | 1 |  |" in table
    assert "| layer 1, scale 0.8 | 0.7 of layer 3 | 0.3 |" in table


@pytest.mark.parametrize(("order", "told"), [([0, 1, 2], False), ([2, 1, 0], False), ([1, 0], True), ([0, 2, 1], True)])
def test_what_mergekit_makes_of_kinds_of_attention_is_told(order: list[int], told: bool, tmp_path: Path) -> None:
    """Gemma 2's layers are sliding, full, sliding."""
    paths = make_family("gemma2", tmp_path, ("one", "two"))
    opened = open_parents(None, {name: str(folder) for name, folder in paths.items()}, 0)
    found = caveats(path(opened, [("one", layer) for layer in order]), opened)
    assert any("layer_types" in caveat for caveat in found) == told


def test_a_frankenmerge_is_scored_and_merged(cli: Cli, tmp_path: Path) -> None:
    slices = [
        {"sources": [{"model": str(DEMO_MODELS / m), "layer_range": r}]}
        for m, r in (("maths", [0, 4]), ("lists", [3, 6]))
    ]
    plain = {"merge_method": "passthrough", "slices": slices, "dtype": "float16"}
    (tmp_path / "f.yml").write_text(yaml.safe_dump(plain))
    assert cli("merge", tmp_path / "f.yml", "--out", tmp_path / "M").status == 0
    scores = []
    for model in (tmp_path / "f.yml", tmp_path / "M"):
        found = cli("score", model, "--fitness", "demo", "--items", "search", "--json")
        assert found.status == 0, found.err
        scores.append(json.loads(found.out)["objectives"])
    assert scores[0] == scores[1]


def test_a_path_of_a_run_is_exported_with_card_and_configuration(
    files: ParentFiles, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load(finished["one"])
    recipe = path(files, STEPS, SCALES, ("maths", "japanese"))
    monkeypatch.setattr(Results, "recipe", lambda self, number: recipe)
    (remark,) = export_run(results, results.pick("best"), files, tmp_path / "M", ["all"])
    assert remark.startswith("scales are folded into float16 weights")
    card = (tmp_path / "M/README.md").read_text()
    assert f"S{remark[1:]}." in card
    assert "| 0-2 | maths | 0-2 | 1, 0.85, 1 |" in card
    assert yaml.safe_load((tmp_path / "M/mergekit.yml").read_text())["merge_method"] == "passthrough"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "M").config.num_hidden_layers == len(STEPS)
