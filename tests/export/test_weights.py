"""Recipes of another depth, order and scale: the folder that is written computes what the resident model does."""

import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, MORE, make_family
from paths import path, random_path
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import SpecError
from evomerge.export import export_recipe
from evomerge.materialize import LiveModel
from evomerge.recipe import Recipe

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 35).view(2, 16)
PRE_NORM = sorted(
    {*FAMILIES, "gemma", "phi", "starcoder2", "stablelm", "cohere2", "granite", "glm4", "mixtral", "qwen2_moe"}
    - {"olmo2"}
)


def opened(family: str, folder: Path, *, dtype: str = "float32", **changes: object) -> ParentFiles:
    paths = make_family(family, folder, ("base", "one"), dtype=dtype, **changes)
    return open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)


def exported(recipe: Recipe, files: ParentFiles, out: Path) -> torch.nn.Module:
    export_recipe(recipe, files, out)
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the range of the values."""
    return float((ours - theirs).abs().max() / (theirs.max() - theirs.min()))


def greedy(model: torch.nn.Module, **options: object) -> torch.Tensor:
    made: torch.Tensor = model.generate(
        input_ids=TOKENS[:, :6],
        attention_mask=torch.ones(2, 6, dtype=torch.long),
        max_new_tokens=10,
        min_new_tokens=10,
        do_sample=False,
        **options,
    )
    return made


@pytest.mark.parametrize("family", PRE_NORM)
def test_a_path_with_scales_is_exported_as_it_is_scored(family: str, tmp_path: Path) -> None:
    files = opened(family, tmp_path)
    live = LiveModel(files, CPU)
    for seed, depth in enumerate((2, 3, 6)):
        recipe = random_path(files, depth, seed)
        live.load(recipe)
        stock = exported(recipe, files, tmp_path / f"out-{seed}")
        with torch.inference_mode():
            assert apart(live.model(TOKENS).logits, stock(TOKENS).logits) < 1e-4
            assert torch.equal(greedy(live.model), greedy(stock))
            # A repeated layer has keys and values of its own each time.
            assert torch.equal(greedy(stock, use_cache=False), greedy(stock))
            assert torch.equal(greedy(live.model, use_cache=False), greedy(live.model))
            cache = stock(TOKENS, use_cache=True).past_key_values
        assert len(cache.layers) == depth == stock.config.num_hidden_layers


def test_a_path_without_scales_is_exported_bit_for_bit(tmp_path: Path) -> None:
    files = opened("qwen3", tmp_path, dtype="bfloat16")
    live = LiveModel(files, CPU)
    recipe = random_path(files, 7, 3, scaled=False)
    live.load(recipe)
    with torch.inference_mode():
        assert torch.equal(live.model(TOKENS).logits, exported(recipe, files, tmp_path / "out")(TOKENS).logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_tied_embeddings_are_written_once(family: str, tied: bool, tmp_path: Path) -> None:
    files = opened(family, tmp_path, tie_word_embeddings=tied)
    assert ("head" in files.parents.outer) == (not tied)
    recipe = random_path(files, 4, 1)
    live = LiveModel(files, CPU)
    live.load(recipe)
    with torch.inference_mode():
        assert apart(live.model(TOKENS).logits, exported(recipe, files, tmp_path / "out")(TOKENS).logits) < 1e-4


@pytest.mark.parametrize(
    ("family", "changes", "kinds"),
    [
        ("gemma2", {"sliding_window": 4}, ["sliding_attention", "full_attention", "sliding_attention"]),
        ("gemma3_text", {"sliding_window": 4}, ["sliding_attention"] * 5 + ["full_attention"] * 1),
        (
            "qwen2",
            {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 2},
            ["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
        ),
    ],
)
@pytest.mark.parametrize("said", ["layer by layer", "as null", "not at all"])
def test_the_kind_of_attention_goes_with_a_layer(
    family: str, changes: dict[str, object], kinds: list[str], said: str, tmp_path: Path
) -> None:
    """Also where the folder's config leaves the kinds to a rule of the class."""
    paths = make_family(family, tmp_path, ("base", "one"), num_hidden_layers=len(kinds), **changes)
    for folder in paths.values() if said != "layer by layer" else ():
        config = json.loads((folder / "config.json").read_text()) | {"layer_types": None}
        if said == "not at all":
            del config["layer_types"]
        (folder / "config.json").write_text(json.dumps(config))
    files = open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)
    last = len(kinds) - 1
    order = [last, 0, last, 1, 0]
    recipe = path(files, [("one" if step % 2 else "base", layer) for step, layer in enumerate(order)], [0.8] * 5)
    live = LiveModel(files, CPU)
    live.load(recipe)
    stock = exported(recipe, files, tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").layer_types == [kinds[layer] for layer in order]
    with torch.inference_mode():
        assert apart(live.model(TOKENS).logits, stock(TOKENS).logits) < 1e-4
        assert torch.equal(greedy(live.model), greedy(stock))
        assert torch.equal(greedy(stock, use_cache=False), greedy(stock))


def test_experts_go_with_a_layer_where_others_have_none(tmp_path: Path) -> None:
    files = opened("qwen2_moe", tmp_path, mlp_only_layers=[1])
    recipe = path(files, [("base", 1), ("one", 0), ("one", 1), ("base", 2)], [1.2, 0.7, 1.0, 0.9])
    live = LiveModel(files, CPU)
    live.load(recipe)
    stock = exported(recipe, files, tmp_path / "out")
    assert stock.config.mlp_only_layers == [0, 2]
    with torch.inference_mode():
        assert apart(live.model(TOKENS).logits, stock(TOKENS).logits) < 1e-4


def test_a_class_that_reads_the_stream_without_a_norm_has_no_scales(tmp_path: Path) -> None:
    files = opened("olmo2", tmp_path)
    live = LiveModel(files, CPU)
    steps = [("base", 0), ("one", 2), ("one", 2), ("base", 1)]
    plain, scaled = path(files, steps), path(files, steps, [1.0, 0.8, 1.0, 1.0])
    with pytest.raises(SpecError, match=r"^Olmo2ForCausalLM: .*leave space\.scale out"):
        live.load(scaled)
    with pytest.raises(SpecError, match=r"^Olmo2ForCausalLM: .*leave space\.scale out"):
        export_recipe(scaled, files, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    live.load(plain)
    stock = exported(plain, files, tmp_path / "out")
    with torch.inference_mode():
        assert torch.equal(live.model(TOKENS).logits, stock(TOKENS).logits)


def test_a_class_that_counts_its_layers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    files = opened("gpt2", tmp_path, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(SpecError, match="layer 1 would not behave as layer 2 does; leave every layer at its place"):
        export_recipe(path(files, [("base", 0), ("base", 2)]), files, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_recipe(path(files, [("base", 0), ("one", 1), ("base", 2)]), files, tmp_path / "out")


def test_the_config_says_the_depth_in_the_words_of_its_class(tmp_path: Path) -> None:
    files = opened("gpt2", tmp_path)
    export_recipe(random_path(files, 5, 1), files, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["n_layer"] == 5
    assert "num_hidden_layers" not in config


@pytest.mark.parametrize("family", sorted({*FAMILIES, *MORE}))
def test_whether_a_class_can_have_scales_is_found_out(family: str, tmp_path: Path) -> None:
    files = opened(family, tmp_path)
    recipe = path(files, [("base", 0), ("one", 1)], [0.8, 1.2])
    live = LiveModel(files, CPU)
    if family in ("olmo2", "olmo3", "exaone4"):
        with pytest.raises(SpecError, match="leave space.scale out"):
            live.load(recipe)
    else:
        live.load(recipe)
