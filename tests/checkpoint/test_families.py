"""Ten families: layers and components are found from the class, and what is resident is what is exported."""

from pathlib import Path

import pytest
import torch
from families import FAMILIES, make_family
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.assemble import merge
from evomerge.checkpoint import open_parents
from evomerge.materialize import LiveModel
from evomerge.recipe import Recipe
from evomerge.space import BlendSpec, bind

TOKENS = torch.arange(3, 35).view(2, 16)


def some_recipe(files: object, operator: str) -> Recipe:
    spec = BlendSpec.model_validate_json(f'{{"operator": "{operator}", "components": "split", "groups": 2}}')
    space = bind(spec, files.parents)
    return space.decode(tuple((0.3 + 0.61 * i) % 1.0 for i in range(len(space.genes))))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_has_one_place(family: str, tmp_path: Path) -> None:
    paths = make_family(family, tmp_path)
    files = open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)
    anatomy = files.anatomy
    model = AutoModelForCausalLM.from_pretrained(paths["base"], dtype=torch.float32)
    unique = dict(model.named_parameters())
    assert set(anatomy.places) == set(unique)
    assert anatomy.layers == 3
    for layer in range(3):
        parts = {place.part for place in anatomy.places.values() if place.layer == layer}
        assert parts == {"attention", "mlp", "norm"}
    tied = bool(model.config.tie_word_embeddings)
    assert set(anatomy.outer) == {"embeddings", "norm"} | (set() if tied else {"head"})
    norms = {name for name, place in anatomy.places.items() if place.part == "norm"}
    assert norms == {name for name in unique if "norm" in name.lower() or ".ln_" in name}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "operator"), [("float32", "ties"), ("bfloat16", "task_arithmetic")])
def test_resident_logits_equal_those_of_the_loaded_export(
    family: str, dtype: str, operator: str, tmp_path: Path
) -> None:
    paths = make_family(family, tmp_path, dtype=dtype)
    files = open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)
    live = LiveModel(files, torch.device("cpu"))
    recipe = some_recipe(files, operator)
    live.load(recipe)
    merge(recipe, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.inference_mode():
        assert torch.equal(live.model(TOKENS).logits, loaded(TOKENS).logits)
    base = AutoModelForCausalLM.from_pretrained(paths["base"], dtype=torch.float32).eval()
    with torch.inference_mode():
        assert not torch.allclose(base(TOKENS).logits, loaded(TOKENS).logits, atol=1e-3)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert stored.dtype == getattr(torch, dtype)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("Sort: 2 1")["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_gene_changes_its_own_tensors_and_no_others(family: str, tmp_path: Path) -> None:
    paths = make_family(family, tmp_path)
    files = open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)
    live = LiveModel(files, torch.device("cpu"))
    space = bind(BlendSpec.model_validate_json('{"components": "split", "groups": "layer"}'), files.parents)
    start = (0.5,) * len(space.genes)
    live.load(space.decode(start))
    before = {name: tensor.clone() for name, tensor in live.model.state_dict().items()}
    owners: dict[str, str] = {}
    for i, gene in enumerate(space.genes):
        live.load(space.decode((*start[:i], 0.6, *start[i + 1 :])))
        changed = {name for name, tensor in live.model.state_dict().items() if not torch.equal(tensor, before[name])}
        changed &= set(files.anatomy.places)
        assert changed, f"{gene.name} changes nothing"
        assert not changed & set(owners), f"{gene.name} shares tensors with another gene"
        owners |= dict.fromkeys(changed, gene.name)
    live.load(space.decode(start))
    assert set(owners) == set(files.anatomy.places)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.model.state_dict().items())
