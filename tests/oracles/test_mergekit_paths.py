"""Recipes that move layers, against mergekit 0.1.5: its passthrough, and its slices of other methods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DEMO_MODELS
from families import make_family
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from paths import path
from safetensors.torch import load_file
from transformers import AutoConfig

from evomerge.assemble import merge
from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import SpecError
from evomerge.export import export_recipe, to_mergekit
from evomerge.recipe import Blend, Layer, Linear, Operator, Recipe, Source, Ties

STEPS = [("maths", 0), ("maths", 1), ("maths", 2), ("japanese", 2), ("japanese", 3), ("maths", 2), ("japanese", 5)]
OUTER = ("maths", "japanese")


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    return open_parents(str(DEMO_MODELS / "base"), experts, 0)


def merged_there(plain: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    # As a file: what is in it must survive YAML.
    configuration = MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(plain)))
    run_merge(configuration, str(out), MergeOptions(quiet=True))
    return load_file(out / "model.safetensors")


def merged_here(recipe: Recipe, files: ParentFiles, out: Path) -> dict[str, torch.Tensor]:
    export_recipe(recipe, files, out)
    return load_file(out / "model.safetensors")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], steps: float = 0.0) -> None:
    """The same tensors, but for so many steps of fp16."""
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        difference = (tensor.float() - theirs[name].float()).abs()
        assert float((difference - steps * 2**-10 * tensor.float().abs()).max()) <= (1e-7 if steps else 0.0), name


def depth_of(out: Path) -> int:
    return int(AutoConfig.from_pretrained(out).num_hidden_layers)


@pytest.mark.parametrize("scales", [(), (0.7, 1.0, 1.0, 1.3, 1.2, 0.9, 1.1)])
def test_a_path_is_passthrough(scales: Sequence[float], files: ParentFiles, tmp_path: Path) -> None:
    recipe = path(files, STEPS, scales, OUTER)
    plain = to_mergekit(recipe, files)
    assert plain["merge_method"] == "passthrough"
    assert [part["sources"][0]["layer_range"] for part in plain["slices"]] == (
        [[0, 3], [2, 3], [3, 4], [2, 3], [5, 6]] if scales else [[0, 3], [2, 4], [2, 3], [5, 6]]
    )
    same(merged_here(recipe, files, tmp_path / "ours"), merged_there(plain, tmp_path / "theirs"))
    assert depth_of(tmp_path / "ours") == depth_of(tmp_path / "theirs") == 7

    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    assert merge(tmp_path / "c.yml", tmp_path / "again").gains() == pytest.approx(recipe.gains(), rel=1e-12)
    same(load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "again/model.safetensors"))


@pytest.mark.parametrize(
    ("family", "filters"),
    [
        ("gpt2", {"c_proj"}),
        ("gpt_neox", {".attention.dense.weight", ".attention.dense.bias", "dense_4h_to_h"}),
        ("phi", {"dense", "fc2"}),
        ("stablelm", {"o_proj", "down_proj"}),
    ],
)
def test_filters_fit_what_layers_add_and_nothing_else(family: str, filters: set[str], tmp_path: Path) -> None:
    paths = make_family(family, tmp_path, ("one", "two"))
    files = open_parents(None, {name: str(folder) for name, folder in paths.items()}, 0)
    recipe = path(files, [("two", 1), ("one", 0), ("one", 1), ("one", 1)], [0.8, 1.2, 1.0, 0.6], ("two", "one"))
    plain = to_mergekit(recipe, files)
    scale = plain["slices"][0]["sources"][0]["parameters"]["scale"]
    assert {entry["filter"] for entry in scale[:-1]} == filters
    if family != "gpt_neox":  # mergekit looks for tensors that today's checkpoints of it do not have.
        same(merged_here(recipe, files, tmp_path / "ours"), merged_there(plain, tmp_path / "theirs"))
        assert depth_of(tmp_path / "ours") == depth_of(tmp_path / "theirs") == 4
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    assert merge(tmp_path / "c.yml", tmp_path / "again").gains() == pytest.approx(recipe.gains(), rel=1e-12)


def blended(files: ParentFiles, operator: Operator) -> Recipe:
    """Layers 0, 1, 1, 3 of maths with 0, 2, 2, 3 of Japanese; from layer 4 on copies."""
    layers = []
    for maths, japanese in ((0, 0), (1, 2), (1, 2), (3, 3)):
        sources = tuple(
            Source(parent=name, layer=layer, weight=weight, density=1.0 if operator.kind == "linear" else 0.6)
            for name, layer, weight in (("maths", maths, 0.7), ("japanese", japanese, 0.5))
        )
        base = Source(parent="base", layer=maths) if operator.kind == "ties" else None
        layers.append(Layer(blend=Blend(operator=operator, base=base, sources=sources)))
    copies = path(files, [("japanese", 4), ("japanese", 5), ("maths", 5)], outer=("japanese", "maths"))
    return copies.model_copy(update={"layers": (*layers, *copies.layers)})


@pytest.mark.parametrize("operator", [Linear(normalize=False), Ties()])
def test_blends_of_layers_that_moved_are_slices_with_ranges_of_their_own(
    operator: Operator, files: ParentFiles, tmp_path: Path
) -> None:
    recipe = blended(files, operator)
    plain = to_mergekit(recipe, files)
    assert plain["merge_method"] == operator.kind
    ours, theirs = merged_here(recipe, files, tmp_path / "ours"), merged_there(plain, tmp_path / "theirs")
    assert depth_of(tmp_path / "ours") == depth_of(tmp_path / "theirs") == 7
    if operator.kind == "linear":
        same(ours, theirs, steps=1)
    wrong = sum(
        int(((tensor.float() - theirs[name].float()).abs() > 2**-10 * tensor.float().abs() + 1e-7).sum())
        for name, tensor in ours.items()
    )
    # Trimming meets ties at its threshold, of which mergekit keeps some.
    assert wrong <= 0.01 * sum(tensor.numel() for tensor in ours.values())

    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    merge(tmp_path / "c.yml", tmp_path / "again")
    same(ours, load_file(tmp_path / "again/model.safetensors"), steps=1)


def frankenmerge(*slices: tuple[str, list[int], dict[str, Any]]) -> dict[str, Any]:
    return {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(DEMO_MODELS / model), "layer_range": layers, **more}]}
            for model, layers, more in slices
        ],
        "dtype": "float16",
    }


GAINED = {"parameters": {"scale": [{"filter": "o_proj", "value": 0.5}, {"filter": "down_proj", "value": 0.5}]}}
PUBLISHED = [
    frankenmerge(("maths", [0, 4], {}), ("maths", [2, 6], {})),
    frankenmerge(("maths", [0, 4], {}), ("japanese", [2, 5], GAINED), ("maths", [4, 6], {})),
    frankenmerge(("maths", [0, 4], {}), ("japanese", [2, 5], {"parameters": {"scale": 1.0}})),
]


@pytest.mark.parametrize("plain", PUBLISHED)
def test_a_frankenmerge_is_merged_as_mergekit_does(plain: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_text(yaml.safe_dump(plain))
    merge(tmp_path / "f.yml", tmp_path / "ours")
    theirs = merged_there(plain, tmp_path / "theirs")
    same(load_file(tmp_path / "ours/model.safetensors"), theirs, steps=1)
    assert depth_of(tmp_path / "ours") == depth_of(tmp_path / "theirs")


def scaled(scale: object) -> dict[str, Any]:
    return frankenmerge(("maths", [0, 4], {"parameters": {"scale": scale}}), ("maths", [3, 6], {}))


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (scaled(0.5), "layer 0: scale is read where it multiplies what the layer adds"),
        (
            scaled([{"filter": "o_proj", "value": 0.5}, {"value": 1}]),
            "one value above zero for mlp.down_proj, self_att",
        ),
        (scaled([{"filter": "q_proj", "value": 0.5}, {"value": 1}]), "and 1 for all else"),
        (scaled([{"filter": "embed", "value": 0.5}, {"value": 1}]), "embeddings: scale is read where"),
        (frankenmerge(("maths", [0, 9], {})), r"layer_range \[0, 9\] of .*maths, which has 6 layers"),
    ],
)
def test_what_passthrough_says_otherwise_is_refused(plain: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_text(yaml.safe_dump(plain))
    with pytest.raises(SpecError, match=words):
        merge(tmp_path / "f.yml", tmp_path / "out")


def test_what_mergekit_has_no_words_for_is_refused(files: ParentFiles, tmp_path: Path) -> None:
    gained = [1.0, 0.8, *[1.0] * 5]
    with pytest.raises(SpecError, match="outer.embeddings is japanese's, and .* the first layer, maths"):
        to_mergekit(path(files, STEPS, gained, ("japanese", "japanese")), files)
    with pytest.raises(SpecError, match="outer.norm is maths's, and .* the last layer, japanese"):
        to_mergekit(path(files, STEPS, gained, ("maths", "maths")), files)
    recipe = blended(files, Linear(normalize=False))
    layers = (recipe.layers[0].model_copy(update={"scale": 0.7}), *recipe.layers[1:])
    with pytest.raises(SpecError, match="mergekit scales in passthrough only"):
        to_mergekit(recipe.model_copy(update={"layers": layers}), files)
    twice = Blend(sources=(Source(parent="maths", layer=1), Source(parent="maths", layer=2)))
    with pytest.raises(SpecError, match="layer 0 takes one model more than once"):
        to_mergekit(recipe.model_copy(update={"layers": (Layer(blend=twice), *recipe.layers)}), files)
    two = Layer(blend=recipe.layers[0].blend, mlp=recipe.layers[1].blend)
    with pytest.raises(SpecError, match="layer 0 takes several layers of maths"):
        to_mergekit(recipe.model_copy(update={"layers": (two, *recipe.layers)}), files)
    gemma = make_family("gemma2", tmp_path, ("one", "two"))
    opened = open_parents(None, {name: str(folder) for name, folder in gemma.items()}, 0)
    with pytest.raises(SpecError, match="norms multiply by one plus their weight"):
        to_mergekit(path(opened, [("one", 0), ("one", 1)], [0.8, 1.0], ("one", "one")), opened)


def test_a_path_whose_ends_are_others_is_a_linear_merge_of_slices(files: ParentFiles, tmp_path: Path) -> None:
    recipe = path(files, STEPS, outer=("japanese", "maths"))
    plain = to_mergekit(recipe, files)
    assert plain["merge_method"] == "linear"
    same(merged_here(recipe, files, tmp_path / "ours"), merged_there(plain, tmp_path / "theirs"))
