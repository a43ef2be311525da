"""Layers laid out anew: referred to instead of copied, each hop with a place of its own."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS
from families import make_family

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.materialize import LiveModel
from evomerge.materialize.tensors import LayerTensors
from evomerge.recipe import Recipe
from evomerge.space import SpaceSpec, bind, unchanged
from evomerge.space.hops import Hop, recipe_of
from evomerge.spec import parse

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 35)[None]


@pytest.fixture(scope="module")
def demo() -> ParentFiles:
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    return open_parents(str(DEMO_MODELS / "base"), experts, 0)


def family(name: str, folder: Path, **changes: object) -> ParentFiles:
    paths = make_family(name, folder, **changes)
    return open_parents(str(paths["base"]), {"one": str(paths["one"]), "two": str(paths["two"])}, 0)


def path(files: ParentFiles, *hops: tuple[str, int] | tuple[str, int, float]) -> Recipe:
    return recipe_of(files.parents, hops[0][0], [Hop(*hop) for hop in hops])


def logits(live: LiveModel) -> torch.Tensor:
    with torch.inference_mode():
        return live.model(input_ids=TOKENS, use_cache=False).logits.clone()


def test_a_path_is_what_a_stock_model_with_these_layers_computes(tmp_path: Path) -> None:
    files = family("llama", tmp_path)
    live, one, two = (LiveModel(files, CPU) for _ in range(3))
    live.load(path(files, ("one", 0), ("two", 2), ("two", 2), ("one", 1), ("one", 2)))
    one.load(path(files, ("one", 0), ("one", 1), ("one", 2)))
    two.load(path(files, ("two", 0), ("two", 1), ("two", 2)))
    stock = one.model
    first, middle, last = one.stack.hops
    repeated = two.stack.hops[2]
    stock.model.layers = torch.nn.ModuleList([first, repeated, copy.deepcopy(repeated), middle, last])
    stock.config.num_hidden_layers = 5
    assert torch.equal(logits(live), logits(one))


def test_a_repeated_layer_shares_its_tensors_and_keeps_keys_and_values_apart(demo: ParentFiles) -> None:
    live = LiveModel(demo, CPU)
    live.load(path(demo, ("maths", 0), ("maths", 3), ("japanese", 3), ("maths", 3), ("maths", 5)))
    layers = live.model.model.layers
    assert len(layers) == live.model.config.num_hidden_layers == 5
    names = dict(layers[1].named_parameters())
    assert all(other is names[name] for name, other in layers[3].named_parameters())
    assert not any(other is names[name] for name, other in layers[2].named_parameters())
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(5))
    out = live.model(input_ids=TOKENS, use_cache=True)
    cached = out.past_key_values
    assert len(cached.layers) == 5
    assert not torch.equal(cached.layers[1].keys, cached.layers[3].keys)


def test_layers_stored_as_they_are_computed_with_are_not_copied(tmp_path: Path) -> None:
    files = family("llama", tmp_path, dtype="float32")
    live = LiveModel(files, CPU)
    assert live.load(path(files, ("one", 0), ("two", 1), ("one", 2), ("one", 2))) > 0
    places = [tensor.data_ptr() for layer in live.model.model.layers for tensor in layer.parameters()]
    live.load(path(files, ("two", 0), ("two", 1)))
    live.load(path(files, ("one", 2), ("one", 0), ("two", 1)))
    again = [tensor.data_ptr() for layer in live.model.model.layers for tensor in layer.parameters()]
    assert set(again) <= set(places)


def test_known_layers_are_laid_out_without_any_merging(demo: ParentFiles) -> None:
    live = LiveModel(demo, CPU)
    live.load(path(demo, *(("maths", i) for i in range(6))))
    live.load(path(demo, ("maths", 0), *(("japanese", i) for i in range(1, 6))))
    assert live.load(path(demo, ("maths", 0), ("japanese", 4), ("maths", 4), ("japanese", 1), ("maths", 5))) == 0


def test_with_little_room_no_more_is_held_than_the_largest_candidate_takes(demo: ParentFiles) -> None:
    live = LiveModel(demo, CPU)
    size = 4 * sum(torch.Size(demo.anatomy.shapes[name]).numel() for name in demo.anatomy.inside[0])
    live._tensors = LayerTensors(live.merger, 4 * size)
    recipes = [
        path(demo, ("maths", 0), *((name, i) for i in order), ("maths", 5))
        for name in ("maths", "japanese", "base")
        for order in ((1, 2, 3), (4, 4, 1), (2, 3, 4, 1))
    ]
    most = max(len(set(recipe.layers)) for recipe in recipes)
    assert 4 < most < 10
    wide = LiveModel(demo, CPU)
    for recipe in recipes * 2:
        live.load(recipe)
        wide.load(recipe)
        assert torch.equal(logits(live), logits(wide))
        held = {made.tensor.data_ptr() for made in live._tensors._made.values() if made.own}
        assert len(held) <= len(demo.anatomy.inside[0]) * most


def test_a_search_over_blends_holds_one_model(demo: ParentFiles) -> None:
    """Whatever parents were loaded before, unchanged, to be scored themselves."""
    live = LiveModel(demo, CPU)
    own = sum(made.tensor.nbytes for made in live._tensors._made.values())
    before = {name: logits(live) for name in demo.parents.names if live.load(unchanged(demo.parents, name)) or True}
    assert sum(made.tensor.nbytes for made in live._tensors._made.values()) == 3 * own
    space = bind(parse(SpaceSpec, {"kind": "blend"}, "space"), demo.parents)
    for weight in (0.3, 0.6):
        live.load(space.decode((weight,) * len(space.genes)))
        assert sum(made.tensor.nbytes for made in live._tensors._made.values()) == own
        assert live._tensors._bytes <= 2 * own
    for name, expected in before.items():
        live.load(unchanged(demo.parents, name))
        assert torch.equal(logits(live), expected)


def test_a_joint_candidate_is_its_blend_laid_out(demo: ParentFiles) -> None:
    """Repeating and leaving out layers of a blend gives what the same does to the merged folder's."""
    plain = {"kind": "joint", "blend": {"weight": [-0.25, 1.5]}, "path": {"kind": "path", "repeats": 2}}
    space = bind(parse(SpaceSpec, plain, "space"), demo.parents)
    genome = tuple(0.1 + 0.8 * (i * 7 % 11) / 10 for i in range(len(space.genes)))
    recipe = space.decode(genome)
    live, whole = LiveModel(demo, CPU), LiveModel(demo, CPU)
    live.load(recipe)
    order = recipe.origins()
    assert order != tuple(range(6))
    known = dict(zip(order, recipe.layers, strict=True))
    stack = tuple(known.get(i, recipe.layers[0]) for i in range(6))
    whole.load(recipe.model_copy(update={"layers": stack}))
    layers = whole.stack.hops
    whole.model.model.layers = torch.nn.ModuleList([layers[i] for i in order])
    whole.model.config.num_hidden_layers = len(order)
    assert torch.equal(logits(live), logits(whole))
