"""The coefficient space: total, invertible, every gene alive, every fixed recipe where it belongs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import SpecError
from evomerge.recipe import COMPONENTS, Arrays, Folder, Parents, Recipe, Source
from evomerge.space import BlendSpec, JointSpec, PathSpec, SearchSpace, bind, fixed_recipes, unchanged


def parents(*experts: str, base: bool = True, layers: int = 5) -> Parents:
    names = (*(("base",) if base else ()), *experts)
    return Parents(
        models={name: Folder(path=f"/{name}", digest=f"sha256:{name}") for name in names},
        base="base" if base else None,
        experts=experts,
        layers=layers,
        outer=("embeddings", "norm", "head"),
        dtype="bfloat16",
    )


def space(over: Parents, **spec: Any) -> SearchSpace:
    return bind(BlendSpec.model_validate_json(json.dumps(spec)), over)


SPECS = st.fixed_dictionaries(
    {
        "operator": st.sampled_from(["linear", "task_arithmetic", "ties", "dare_ties", "slerp"]),
        "groups": st.sampled_from(["layer", "model", 1, 3, [[0, 1], [2, 4]]]),
        "components": st.sampled_from(["all", "split"]),
        "outer": st.sampled_from(["own", "base", "one"]),
    }
)
UNITS = st.floats(0.0, 1.0)


@settings(max_examples=120, deadline=None)
@given(spec=SPECS, data=st.data())
def test_every_genome_is_a_recipe_and_every_such_recipe_a_genome(spec: dict[str, Any], data: st.DataObject) -> None:
    if spec["operator"] in ("ties", "dare_ties"):
        spec = spec | {"density": [0.2, 1.0]}
    here = space(parents("one", "two"), **spec)
    genome = tuple(data.draw(st.lists(UNITS, min_size=len(here.genes), max_size=len(here.genes))))
    recipe = here.decode(genome)
    again = here.decode(here.encode(recipe))
    assert again == recipe
    assert again.digest() == recipe.digest()
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate_json(json.dumps(recipe.to_plain())) == recipe


@settings(max_examples=60, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 100))
def test_every_gene_moves_the_recipe(spec: dict[str, Any], seed: int) -> None:
    here = space(parents("one", "two"), **spec)
    middle = tuple((0.31 + 0.17 * ((i + seed) % 4)) for i in range(len(here.genes)))
    assert len({gene.name for gene in here.genes}) == len(here.genes)
    for i in range(len(middle)):
        moved = (*middle[:i], middle[i] + 0.11, *middle[i + 1 :])
        assert here.decode(moved).digest() != here.decode(middle).digest(), here.genes[i].name


@settings(max_examples=30, deadline=None)
@given(genome=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=16, max_size=16))
def test_numbers_outside_the_cube_are_its_edge(genome: list[float]) -> None:
    here = space(parents("one", "two"))
    assert here.decode(tuple(genome)) == here.decode(tuple(min(max(x, 0.0), 1.0) for x in genome))


@pytest.mark.parametrize(
    ("spec", "count", "names"),
    [
        ({"groups": "model", "outer": "join"}, 2, ["one.weight", "two.weight"]),
        ({"groups": "layer"}, 16, ["one.layers.0.weight", "two.head.weight"]),
        ({"groups": 2}, 10, ["one.layers.0-1.weight", "one.layers.2-4.weight"]),
        ({"groups": 2, "outer": "join"}, 4, ["two.layers.2-4.weight"]),
        ({"groups": 2, "components": "split", "outer": "base"}, 12, ["one.layers.0-1.attention.weight"]),
        ({"operator": "ties", "density": [0.2, 1.0], "groups": "model"}, 16, ["one.layers.0-4.density"]),
        ({"operator": "ties", "density": [0, 1], "weight": 1, "groups": "model", "outer": "join"}, 2, ["one.density"]),
        ({"operator": "slerp", "groups": [[0, 3], [4, 4]]}, 5, ["layers.0-3.t", "layers.4.t", "embeddings.t"]),
    ],
)  # fmt: skip
def test_genes_by_name(spec: dict[str, Any], count: int, names: list[str]) -> None:
    found = [gene.name for gene in space(parents("one", "two"), **spec).genes]
    assert len(found) == count
    assert set(names) <= set(found)


def test_outer_groups_are_taken_from_whom_the_spec_names() -> None:
    for outer, parent in (("base", "base"), ("two", "two")):
        here = space(parents("one", "two"), outer=outer)
        recipe = here.decode((0.5,) * len(here.genes))
        assert all(blend.sources == (Source(parent=parent),) for blend in recipe.outer.values())
    joined = space(parents("one", "two"), outer="join", groups=2).decode((0.1, 0.2, 0.3, 0.4))
    weights = {name: [source.weight for source in blend.sources] for name, blend in joined.outer.items()}
    assert weights == {"embeddings": [0.15, 0.3], "norm": [0.45, 0.6], "head": [0.45, 0.6]}


INSIDE = {
    "task_arithmetic": {"base", "one", "two", "uniform average", "task arithmetic 0.7", "task arithmetic 0.85",
                        "task arithmetic 1.0"},
    "linear": {"one", "two", "uniform average"},
    "slerp": {"one", "two"},
    "ties": {"base", "one", "two", "ties 0.2", "ties 0.5"},
    "dare_ties": {"base", "one", "two"},
}  # fmt: skip


@pytest.mark.parametrize("operator", INSIDE)
def test_fixed_recipes_are_inside_as_far_as_the_operator_goes(operator: str) -> None:
    over = parents("one", "two")
    density = {"density": [0.2, 1.0]} if operator in ("ties", "dare_ties") else {}
    here = space(over, operator=operator, **density)
    inside = set()
    for name, recipe in fixed_recipes(over).items():
        try:
            genome = here.encode(recipe)
        except SpecError:
            continue
        inside.add(name)
        assert len(genome) == len(here.genes)
    assert inside == INSIDE[operator]


def test_fixed_recipes_of_three_experts_include_every_pair() -> None:
    names = set(fixed_recipes(parents("a", "b", "c")))
    assert {"base", "a", "b", "c", "uniform average", "ties 0.2", "task arithmetic 0.85"} <= names
    assert {"a + b 0.7", "a + c 0.85", "b + c 1.0"} <= names
    assert len(names) == 4 + 1 + 3 + 9 + 2
    three = parents("a", "b", "c")
    for operator in ("task_arithmetic", "linear"):
        thirds = space(three, operator=operator).encode(fixed_recipes(three)["uniform average"])
        assert len(set(thirds)) == 1, "a third has no end in decimals, and is in the space nevertheless"
    assert set(fixed_recipes(parents("a", "b", base=False))) == {"a", "b", "uniform average"}


def test_what_is_not_in_the_space_is_refused() -> None:
    over = parents("one", "two")
    wide, narrow = space(over, groups="layer"), space(over, groups=2)
    recipe = wide.decode(tuple(i / 16 for i in range(16)))
    with pytest.raises(SpecError, match="varies within"):
        narrow.encode(recipe)
    with pytest.raises(SpecError, match="allows 0 to 0.5"):
        space(over, weight=[0.0, 0.5]).encode(wide.decode((0.9,) * 16))
    with pytest.raises(SpecError, match="those of base"):
        space(over, outer="base").encode(unchanged(over, "one"))
    with pytest.raises(SpecError, match="layers"):
        wide.encode(unchanged(parents("one", "two", layers=4), "one"))
    with pytest.raises(SpecError, match="between two steps"):
        ties = space(over, operator="ties", density=[0.1, 1.0])
        moved = fixed_recipes(over)["ties 0.2"].model_dump_json().replace('"density":0.2', '"density":0.2012')
        ties.encode(Recipe.model_validate_json(moved))


def test_digests_name_content_not_paths_or_names() -> None:
    over = parents("one", "two")
    here = space(over)
    recipe = here.decode((0.4,) * 16)
    moved = over.model_copy(
        update={
            "models": {name: folder.model_copy(update={"path": "/elsewhere"}) for name, folder in over.models.items()}
        }
    )
    assert space(moved).decode((0.4,) * 16).digest() == recipe.digest()
    renamed = recipe.over(
        over.model_copy(update={"models": {"b": over.models["base"], "x": over.models["one"], "y": over.models["two"]},
                                "base": "b", "experts": ("x", "y")}),
        {"base": "b", "one": "x", "two": "y"},
    )  # fmt: skip
    assert renamed.digest() == recipe.digest()
    changed = recipe.model_copy(
        update={"parents": recipe.parents | {"one": Folder(path="/one", digest="sha256:other")}}
    )
    assert changed.digest() != recipe.digest()
    assert recipe.model_copy(update={"seed": 9}).digest() == recipe.digest(), "nothing in it is random"
    dare = space(over, operator="dare_ties", density=[0.5, 1.0]).decode((0.4,) * 32)
    assert dare.model_copy(update={"seed": 9}).digest() != dare.digest()


def test_digests_are_what_they_were() -> None:
    recipe = space(parents("one", "two"), operator="linear").decode((0.5,) * 16)
    assert recipe.digest() == "sha256:80ff160acaeb0aca548666d93e03ebf6e93fd52c5cc04ea08ac3e4ab263b4091"
    own = recipe.model_copy(update={"tensors": {"model.embed.weight": (0.5, 0.25)}})
    arrays = Arrays(path="here", digest="sha256:" + "0" * 64, grain="column")
    fine = recipe.model_copy(update={"arrays": arrays})
    moved = recipe.model_copy(update={"arrays": arrays.at(Path("/elsewhere"))})
    other = recipe.model_copy(update={"arrays": arrays.model_copy(update={"digest": "sha256:" + "1" * 64})})
    by_row = recipe.model_copy(update={"arrays": arrays.model_copy(update={"grain": "row"})})
    assert moved.digest() == fine.digest()
    assert len({each.digest() for each in (recipe, own, fine, other, by_row)}) == 5


def named(over: Parents) -> Parents:
    """The same with tensors that have names."""
    inner = {f"layers.{i}.{part}": f"{i}.{part}" for i in range(over.layers) for part in COMPONENTS}
    return over.model_copy(update={"tensors": {"embed": "embeddings", **inner, "last": "norm", "head": "head"}})


def test_a_tensor_has_the_weights_of_its_layer_until_it_has_its_own() -> None:
    over = named(parents("one", "two"))
    here, wide = space(over, groups="tensor"), space(over, components="split")
    assert len(here.genes) == 2 * len(over.tensors)
    genome = tuple(i / 64 for i in range(len(wide.genes)))
    recipe = here.decode(here.encode(wide.decode(genome)))
    blend = wide.decode(genome).layers[3].part("mlp")
    assert recipe.tensors["layers.3.mlp"] == pytest.approx(blend.coefficients())
    own = wide.decode(genome).model_copy(update={"tensors": {"layers.3.mlp": (1.0, 0.25)}})
    assert here.decode(here.encode(own)).tensors == recipe.tensors | {"layers.3.mlp": (1.0, 0.25)}
    assert here.decode(here.encode(unchanged(over, "two"))).tensors["last"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"components": "split"}, "leave out components"),
        ({"outer": "join"}, "leave out components and outer: join"),
        ({"operator": "ties", "density": [0.2, 1.0]}, "give one number"),
        ({"weight": 0.5}, "give a range"),
    ],
)
def test_what_genes_by_tensor_cannot_be(spec: dict[str, Any], said: str) -> None:
    with pytest.raises((SpecError, ValueError), match=said):
        space(named(parents("one", "two")), groups="tensor", **spec)


def test_recipes_that_genes_by_tensor_do_not_reach() -> None:
    over = named(parents("one", "two"))
    here, recipe = space(over, groups="tensor", outer="base"), space(over, outer="base").decode((0.4,) * 10)
    arrays = Arrays(path="here", digest="sha256:" + "0" * 64, grain="column")
    for change, said in (
        ({"arrays": arrays}, "weights within tensors"),
        ({"tensors": {"nobody": (0.5, 0.5)}}, "tensors.nobody is no tensor"),
        ({"tensors": {"layers.0.mlp": (0.5,)}}, "tensors.layers.0.mlp has 1 numbers; give 2"),
        ({"tensors": {"head": (1.0,)}}, "not all those of base"),
        ({"layers": recipe.layers[:-1]}, "the recipe has 4 layers"),
    ):
        with pytest.raises(SpecError, match=said):
            here.encode(recipe.model_copy(update=change))
    with pytest.raises(SpecError, match="are not known"):
        space(parents("one", "two"), groups="tensor")
    joint = JointSpec(blend=BlendSpec(groups="tensor"), path=PathSpec())
    with pytest.raises(SpecError, match="for a space of coefficients alone"):
        bind(joint, over)


def test_parts_of_a_layer() -> None:
    here = space(parents("one", "two"), components="split", groups="model", outer="base")
    recipe = here.decode((0.1, 0.2, 0.3, 0.4, 0.1, 0.2))
    weights = {part: [s.weight for s in recipe.layers[2].part(part).sources] for part in COMPONENTS}
    assert weights == {"attention": [0.15, 0.3], "mlp": [0.45, 0.6], "norm": [0.15, 0.3]}
    assert recipe.layers[2].norm is None, "what equals the attention is not spelt out"
