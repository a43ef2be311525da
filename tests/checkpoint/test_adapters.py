"""Adapters as parents: the model that one makes of its base is the one that PEFT makes by merging it in."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import trained
from families import make_family
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.checkpoint import Fine, Terms, open_parents
from evomerge.errors import SpecError
from evomerge.materialize import MAPPED, HeldParents, LiveModel, Merger
from evomerge.materialize.merger import Job
from evomerge.recipe import Blend, Grain, Layer, Recipe, Source, TaskArithmetic
from evomerge.space import unchanged

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "lora_alpha": 12},
    "half": {"r": 8, "lora_alpha": 16},
    "rslora": {"r": 4, "lora_alpha": 12, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 4, "use_dora": True},
    "patterns": {
        "r": 4, "lora_alpha": 8, "rank_pattern": {"v_proj": 2, r"layers\.1\.self_attn\.q_proj": 7},
        "alpha_pattern": {"o_proj": 3},
    },
    "modules to save": {"r": 4, "lora_alpha": 8, "modules_to_save": ["gate_proj"]},
    "embeddings": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens"]},
    "embeddings, dora": {"r": 4, "use_dora": True, "target_modules": ["q_proj", "embed_tokens"]},
    "head": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]},
    "biases": {"r": 4, "bias": "all"},
    "lora biases": {"r": 4, "lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
}  # fmt: skip
FAMILY = {"biases": "qwen2", "lora biases": "qwen2", "head": "qwen2"}
"""A llama has no biases, and its head is tied."""


def plain(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype="float32")


def merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of both."""
    return dict(PeftModel.from_pretrained(plain(base), adapter).merge_and_unload().state_dict())


def live(base: Path, **adapters: Path) -> LiveModel:
    files = open_parents(str(base), {name: str(path) for name, path in adapters.items()}, 0)
    return LiveModel(files, torch.device("cpu"))


def same(found: LiveModel, wanted: dict[str, torch.Tensor]) -> None:
    state = found.model.state_dict()
    for name in state:
        torch.testing.assert_close(state[name], wanted[name], atol=1e-6, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_as_it_is_is_what_peft_merges(tmp_path: Path, kind: str) -> None:
    base = make_family(FAMILY.get(kind, "llama"), tmp_path, ("base",))["base"]
    adapter = trained(base, tmp_path / "A", dtype=torch.float16 if kind == "half" else torch.float32, **KINDS[kind])
    model, wanted, before = live(base, expert=adapter), merged(base, adapter), plain(base).state_dict()
    assert sum(not torch.equal(before[name], wanted[name]) for name in before) >= 3
    for recipe in (unchanged(model.files.parents, "expert"), arithmetic(model, {"expert": 1.0})):
        model.load(recipe)
        same(model, wanted)


def arithmetic(model: LiveModel, weights: dict[str, float]) -> Recipe:
    """Task arithmetic over the whole model."""
    parents = model.files.parents

    def at(layer: int | None) -> Blend:
        sources = tuple(Source(parent=name, layer=layer, weight=weight) for name, weight in weights.items())
        return Blend(operator=TaskArithmetic(), base=Source(parent="base", layer=layer), sources=sources)

    layers = tuple(Layer(blend=at(index)) for index in range(parents.layers))
    return parents.recipe(layers, {group: at(None) for group in parents.outer})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_neox", "phi3"])
def test_an_adapter_of_any_family_is_what_peft_merges(tmp_path: Path, family: str) -> None:
    base = make_family(family, tmp_path, ("base",))["base"]
    adapter = trained(base, tmp_path / "A", r=3, target_modules="all-linear")
    model = live(base, expert=adapter)
    model.load(unchanged(model.files.parents, "expert"))
    same(model, merged(base, adapter))


def test_adapters_of_other_ranks_and_full_experts_are_added_up_exactly(tmp_path: Path) -> None:
    folders = make_family("llama", tmp_path)
    base, full = folders["base"], folders["one"]
    one = trained(base, tmp_path / "A", r=2, lora_alpha=5)
    two = trained(base, tmp_path / "B", r=6, lora_alpha=3, seed=6, target_modules=["up_proj", "q_proj"])
    model = live(base, one=one, two=two, full=full)
    weights = {"one": 0.7, "two": -0.4, "full": 1.3}
    model.load(arithmetic(model, weights))
    before, third = plain(base).state_dict(), plain(full).state_dict()
    experts = {"one": merged(base, one), "two": merged(base, two), "full": third}
    wanted = {
        name: tensor + sum(weight * (experts[each][name] - tensor) for each, weight in weights.items())
        for name, tensor in before.items()
    }
    same(model, wanted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("grain", ["tensor", "column", "row"])
def test_products_side_by_side_are_what_is_added_one_by_one(tmp_path: Path, family: str, grain: Grain) -> None:
    base = make_family(family, tmp_path, ("base",))["base"]
    modules = "all-linear" if family == "gpt2" else ["q_proj", "down_proj"]
    two = trained(base, tmp_path / "B", r=3, seed=6, target_modules=modules, use_rslora=True)
    model = live(base, one=trained(base, tmp_path / "A", r=2, target_modules=modules), two=two)
    held, cpu = HeldParents(model.files, MAPPED, torch.device("cpu")), torch.device("cpu")
    name = next(name for name in model.files.anatomy.shapes if "c_fc.weight" in name or "1.mlp.down_proj" in name)
    shape, layer = model.files.anatomy.shapes[name], model.files.anatomy.places[name].layer
    blend = arithmetic(model, {"one": 0.7, "two": -0.4}).layers[layer or 0].blend
    fine = None
    if grain != "tensor":
        values = torch.randn(2, shape[-1] if grain == "column" else shape[0]).numpy()
        fine = Fine(grain, values, shape[-1])
    found = []
    for merger in (Merger(held.read, held.mask_key, cpu, product=held.product), Merger(held.read, held.mask_key, cpu)):
        found.append(torch.empty(math.prod(shape)))
        merger.write(Job(blend, name, found[-1], torch.float32, 0, fine))
    assert held.product(blend.sources[0], Source(parent="base", layer=layer), name) is not None
    assert not torch.allclose(found[0], held.read("base", layer, name), atol=1e-3)
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_what_no_adapter_changes_is_the_base_s_own_memory(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    files = open_parents(str(base), {"expert": str(trained(base, tmp_path / "A", r=2))}, 0)
    adapter = files.adapter("expert")
    assert adapter is not None
    name = "model.layers.1.mlp.up_proj.weight"
    shared = (adapter.tensor(name).data_ptr(), files.checkpoints["base"].tensor(name).data_ptr())
    assert shared[0] == shared[1]
    assert adapter.ranks == (2,)
    hidden = 32
    assert adapter.parameters == 3 * 2 * (2 * (hidden + hidden) + hidden + 16)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is [[0, 2]]"),
        ({"r": 3}, "has no two factors of rank 3"),
        ({"lora_alpha": None}, "alpha is None"),
    ],
)
def test_what_is_more_than_products_is_refused_by_name(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    file = trained(base, tmp_path / "A", r=4) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(SpecError) as caught:
        live(base, expert=file.parent)
    assert said in str(caught.value)
    assert "models.experts.expert" in str(caught.value)


def test_an_adapter_that_is_not_finite_or_not_whole_is_refused(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    file = trained(base, tmp_path / "A", r=2) / "adapter_model.safetensors"
    parts = load_file(file)
    name = next(iter(parts))
    save_file(parts | {name: torch.full_like(parts[name], math.inf)}, file, {"format": "pt"})
    with pytest.raises(SpecError, match=f"{re.escape(name)} holds NaN or infinity; leave this model out"):
        live(base, expert=file.parent)
    save_file({key: part for key, part in parts.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(SpecError, match="has no two factors of rank 2"):
        live(base, expert=file.parent)
    file.write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"adapter_model.safetensors is damaged or cut short"):
        live(base, expert=file.parent)
    file.rename(file.with_name("adapter_model.bin"))
    with pytest.raises(SpecError, match=r"has no adapter_model.safetensors; adapter_model.bin is a pickle"):
        live(base, expert=file.parent)


def test_an_adapter_for_another_base_or_without_one_is_refused(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path / "one", ("base",))["base"]
    wide = make_family("llama", tmp_path / "two", ("base",), hidden_size=64)["base"]
    deep = make_family("llama", tmp_path / "three", ("base",), num_hidden_layers=4)["base"]
    with pytest.raises(SpecError, match=r"as if it had shape \[64, 64\], in models.base it has \[32, 32\]"):
        live(base, expert=trained(wide, tmp_path / "A", r=2))
    with pytest.raises(SpecError, match=r"changes model.layers.3.self_attn.o_proj.weight, which .* has no tensor for"):
        live(base, expert=trained(deep, tmp_path / "B", r=2))
    with pytest.raises(
        SpecError, match=r"models.experts.expert: .* is an adapter; let models.base be the model folder"
    ):
        open_parents(None, {"expert": str(trained(base, tmp_path / "C", r=2)), "other": str(base)}, 0)
    with pytest.raises(SpecError, match=r"models.base: .* is an adapter"):
        open_parents(str(trained(base, tmp_path / "D", r=2)), {"other": str(base)}, 0)


def test_an_adapter_lends_nothing_but_stands_for_its_base(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",), dtype="bfloat16")["base"]
    adapter = str(trained(base, tmp_path / "A", r=2, target_modules="all-linear"))
    files = open_parents(str(base), {"expert": adapter}, 0, terms=Terms(template="expert"))
    assert files.template.path == base
    assert {account.dtype for account in files.accounts.values()} == {"bfloat16"}
    LiveModel(files, torch.device("cpu")).load(unchanged(files.parents, "expert"))


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_may_untie_what_its_base_ties_also_along_a_path(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path, ("base",))["base"]
    adapter = trained(base, tmp_path / "A", r=2, modules_to_save=["embed_tokens", "lm_head"])
    model = live(base, expert=adapter)
    path = unchanged(model.files.parents, "base")
    path = path.model_copy(update={"layers": path.layers[:2]}).only_used()
    walked = {"expert": path.walked(str(adapter), str(base))}
    files = open_parents(path.walked(str(base), dtype="float32"), walked, 0)
    assert files.parents.layers == 2
    found = LiveModel(files, torch.device("cpu"))
    found.load(unchanged(files.parents, "expert"))
    wanted = PeftModel.from_pretrained(plain(base), adapter).merge_and_unload().state_dict()
    state = found.model.state_dict()
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight"):
        torch.testing.assert_close(state[name], wanted[name], atol=1e-6, rtol=1e-6)


def test_what_an_adapter_is_is_told_by_both_folders(tmp_path: Path) -> None:
    base, one = (make_family("llama", tmp_path, ("base", "one"))[name] for name in ("base", "one"))
    adapter = str(trained(base, tmp_path / "A", r=2))
    over_base = open_parents(str(base), {"expert": adapter}, 0)
    over_one = open_parents(str(one), {"expert": adapter}, 0)
    contents = {files.parents.models["expert"].content() for files in (over_base, over_one)}
    assert len(contents) == 2
    over_base.read_again()
    settings = tmp_path / "A/adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    with pytest.raises(SpecError, match="has other content"):
        over_base.read_again()
