"""Merges written as adapters: stock PEFT makes of base and adapter what the merged model is."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import trained
from families import make_family
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import SpecError
from evomerge.export.adapter import exact_rank, write_adapter
from evomerge.export.folder import export_recipe
from evomerge.recipe import Blend, Layer, Recipe, Source, TaskArithmetic
from evomerge.space import fixed_recipes, unchanged

WEIGHTS = (0.7, -0.4)


def added_up(files: ParentFiles, *, outer: bool = True, moved: bool = False) -> Recipe:
    """Task arithmetic, of all or of layers alone; `moved` has the last two layers change places."""
    parents, last = files.parents, files.parents.layers - 1

    def at(layer: int | None) -> Blend:
        pairs = zip(parents.experts, WEIGHTS, strict=True) if outer or layer is not None else ()
        sources = tuple(Source(parent=name, layer=layer, weight=weight) for name, weight in pairs)
        return Blend(operator=TaskArithmetic(), base=Source(parent="base", layer=layer), sources=sources)

    order = [*range(last - 1), last, last - 1] if moved else range(last + 1)
    return parents.recipe(
        tuple(Layer(blend=at(index)) for index in order), {group: at(None) for group in parents.outer}
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return found


def as_peft_reads(base: Path, adapter: Path) -> torch.Tensor:
    return logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), adapter).eval()
    )


@pytest.mark.filterwarnings("ignore")
def test_adapters_added_up_are_an_adapter_of_all_their_ranks(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    experts = {
        "one": str(trained(base, tmp_path / "A", r=2, lora_alpha=5)),
        "two": str(trained(base, tmp_path / "B", r=3, seed=6, target_modules=["up_proj", "q_proj"])),
    }
    files = open_parents(str(base), experts, 0)
    recipe = added_up(files)
    assert exact_rank(recipe, files) == 5
    (tmp_path / "out").mkdir()
    made = write_adapter(tmp_path / "out", recipe, files)
    assert (made.rank, made.error < 1e-5) == (5, True)
    export_recipe(recipe, files, tmp_path / "M")
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "M", dtype="float32"))
    torch.testing.assert_close(as_peft_reads(base, tmp_path / "out"), wanted, atol=1e-5, rtol=1e-4)


def test_what_keeps_not_the_base_as_it_is_has_no_rank_of_its_own(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    experts = {name: str(trained(base, tmp_path / name, r=2, seed=seed)) for seed, name in enumerate(("one", "two"))}
    files = open_parents(str(base), experts, 0)
    recipe = added_up(files)
    assert exact_rank(recipe, files) == 4
    name = "model.layers.0.self_attn.q_proj.weight"
    assert exact_rank(recipe.model_copy(update={"tensors": {name: (0.2, 0.9)}}), files) == 4
    scaled = recipe.layers[1].model_copy(update={"scale": 0.5})
    moved = recipe.model_copy(update={"layers": (recipe.layers[0], scaled, *recipe.layers[2:])})
    assert exact_rank(moved, files) is None
    mean = fixed_recipes(files.parents)["uniform average"]
    assert exact_rank(mean, files) == 4
    assert exact_rank(mean.model_copy(update={"tensors": {name: (0.2, 0.9)}}), files) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "outer"), [("qwen2", True), ("gpt2", False), ("gemma2", False), ("gpt_neox", True), ("llama", False)]
)
def test_any_merge_is_an_adapter_of_full_rank(tmp_path: Path, family: str, outer: bool) -> None:
    folders = make_family(family, tmp_path)
    base = folders.pop("base")
    files = open_parents(str(base), {name: str(path) for name, path in folders.items()}, 0)
    recipe = added_up(files, outer=outer)
    (tmp_path / "out").mkdir()
    assert exact_rank(recipe, files) is None
    made = write_adapter(tmp_path / "out", recipe, files, 32)
    assert made.error < 1e-4
    export_recipe(recipe, files, tmp_path / "M")
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "M", dtype="float32"))
    torch.testing.assert_close(as_peft_reads(base, tmp_path / "out"), wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changed", ["model.norm.weight", "model.layers.1.self_attn.k_proj.bias", "input_layernorm"])
@pytest.mark.parametrize("matrix", [False, True])
def test_norms_and_biases_alone_are_an_adapter_too(tmp_path: Path, changed: str, matrix: bool) -> None:
    base = make_family("qwen2", tmp_path, ("base",))["base"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if changed in name or (matrix and name == "model.layers.0.mlp.up_proj.weight"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path / "one")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "one" / file).write_bytes((base / file).read_bytes())
    files = open_parents(str(base), {"one": str(tmp_path / "one")}, 0)
    (tmp_path / "out").mkdir()
    assert write_adapter(tmp_path / "out", unchanged(files.parents, "one"), files, 32).error < 1e-4
    torch.testing.assert_close(as_peft_reads(base, tmp_path / "out"), logits(model.eval()), atol=1e-4, rtol=1e-3)


def test_what_a_smaller_rank_lacks_is_said(tmp_path: Path) -> None:
    folders = make_family("llama", tmp_path)
    base = folders.pop("base")
    files = open_parents(str(base), {name: str(path) for name, path in folders.items()}, 0)
    (tmp_path / "out").mkdir()
    made = write_adapter(tmp_path / "out", added_up(files, outer=False), files, 4)
    one, two, three = (
        AutoModelForCausalLM.from_pretrained(path, dtype="float32").state_dict() for path in (base, *folders.values())
    )
    lost = whole = 0.0
    for name, tensor in one.items():
        added = WEIGHTS[0] * (two[name] - tensor) + WEIGHTS[1] * (three[name] - tensor)
        if "layers" in name and tensor.ndim == 1:  # Norms are written whole.
            whole += float(added.square().sum())
        elif "layers" in name:
            sizes = torch.linalg.svdvals(added) ** 2
            lost, whole = lost + float(sizes[4:].sum()), whole + float(sizes.sum())
    assert made.error == pytest.approx(math.sqrt(lost / whole), rel=1e-3)


def test_what_no_adapter_can_be_is_refused(tmp_path: Path) -> None:
    folders = make_family("llama", tmp_path)
    base = folders.pop("base")
    experts = {name: str(path) for name, path in folders.items()}
    files = open_parents(str(base), experts, 0)
    with pytest.raises(SpecError, match=r"--rank: this merge is no sum of adapters"):
        write_adapter(tmp_path, added_up(files), files)
    with pytest.raises(SpecError, match=r"model.embed_tokens is changed, and embeddings and head are one tensor"):
        write_adapter(tmp_path, added_up(files), files, 4)
    with pytest.raises(SpecError, match=r"layers in another order or number than the base"):
        write_adapter(tmp_path, added_up(files, moved=True), files, 4)
    with pytest.raises(SpecError, match=r"the candidate is the base, unchanged"):
        write_adapter(tmp_path, unchanged(files.parents, "base"), files, 4)
    alone = open_parents(None, {"first": str(base), **experts}, 0)
    with pytest.raises(SpecError, match=r"an adapter is over a base; name models.base"):
        write_adapter(tmp_path, unchanged(alone.parents, "first"), alone, 4)
