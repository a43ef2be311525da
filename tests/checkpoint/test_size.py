"""What a merged model costs, against models that transformers builds."""

import pytest
from families import FAMILIES, LIKE_LLAMA
from transformers import AutoConfig, PreTrainedModel

from evomerge.checkpoint import Anatomy, Place, blank_model, costs_of
from evomerge.checkpoint.anatomy import anatomy_of
from evomerge.recipe import Blend, Folder, Layer, Linear, Recipe, Source, TaskArithmetic


def of_family(name: str, layers: int) -> PreTrainedModel:
    sizes = FAMILIES[name] if name == "gpt2" else LIKE_LLAMA | FAMILIES[name]
    own = {"n_layer" if name == "gpt2" else "num_hidden_layers": layers, "pad_token_id": 0, "eos_token_id": 2}
    return blank_model(AutoConfig.for_model(name, **(sizes | own)))


def copied(layer: int | None, parent: str = "one") -> Blend:
    return Blend(operator=Linear(), sources=(Source(parent=parent, layer=layer),))


def stacked(hops: list[Layer], outer: tuple[str, ...]) -> Recipe:
    parents = {name: Folder(path=f"/{name}", digest=f"sha256:{name}") for name in ("base", "one")}
    groups = {group: copied(None) for group in outer}
    return Recipe(parents=parents, template="one", dtype="float32", layers=tuple(hops), outer=groups)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hops", [[0, 1, 2], [2], [0, 2], [0, 1, 1, 2, 0, 1, 2]])
def test_weights_are_those_of_a_model_of_that_depth(family: str, hops: list[int]) -> None:
    parent = anatomy_of(of_family(family, 3))
    recipe = stacked([Layer(blend=copied(hop)) for hop in hops], parent.outer)
    weights = sum(parameter.numel() for parameter in of_family(family, len(hops)).parameters())
    assert costs_of(recipe, parent) == {"layers": len(hops), "parameters": weights}


UNEVEN = Anatomy(
    places={
        "embed": Place(None, "embeddings", "embed"),
        **{f"l.{i}.attn": Place(i, "attention", "attn") for i in range(3)},
        **{f"l.{i}.mlp": Place(i, "mlp", "mlp") for i in range(3)},
        "l.2.gate": Place(2, "mlp", "gate"),
    },
    shapes={
        "embed": (100, 10),
        **{f"l.{i}.attn": (10, 10) for i in range(3)},
        **{f"l.{i}.mlp": (10, 20 + 10 * i) for i in range(3)},
        "l.2.gate": (7,),
    },
    layers=3,
    stack="l",
)


def test_every_hop_has_the_weights_of_the_layer_it_comes_from() -> None:
    """Layers of one class may differ, dense ones from those with experts, say."""
    first, last = Layer(blend=copied(0)), Layer(blend=copied(2))
    of_base = Layer(blend=Blend(operator=TaskArithmetic(), base=Source(parent="base", layer=1), sources=()))
    found = costs_of(stacked([last, last, first, of_base], ("embeddings",)), UNEVEN)
    assert found == {"layers": 4, "parameters": 1000 + 2 * (100 + 400 + 7) + (100 + 200) + (100 + 300)}


def test_a_merge_of_a_merge_has_the_weights_of_the_folders_layers() -> None:
    stage = stacked([Layer(blend=copied(2)), Layer(blend=copied(0))], ("embeddings",))
    hops = tuple(Layer(blend=copied(hop)) for hop in (0, 1, 0))
    recipe = stage.model_copy(update={"parents": {"one": stage}, "layers": hops})
    assert costs_of(recipe, UNEVEN) == {"layers": 3, "parameters": 1000 + 2 * (100 + 400 + 7) + (100 + 200)}
