"""What every search space keeps to, whatever it is: one suite, run on all of them."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unions import kinds_of

from evomerge.errors import SpecError
from evomerge.presets import preset_folder, preset_names
from evomerge.recipe import COMPONENTS, Folder, Parents
from evomerge.space import SearchSpace, SpaceSpec, bind, fixed_recipes, unchanged
from evomerge.spec import parse, read_yaml

SCALED = {"scale": [0.5, 1.5]}
BLEND = {"operator": "task_arithmetic", "weight": [-0.25, 1.5]}
SPACES: dict[str, dict[str, Any]] = {
    "blend": {"kind": "blend"},
    "blend, ties": {"kind": "blend", "operator": "ties", "groups": 2, "density": [0.2, 1.0]},
    "blend, slerp": {"kind": "blend", "operator": "slerp", "components": "split"},
    "blend, tensors": {"kind": "blend", "groups": "tensor"},
    "blend, tensors, ties": {"kind": "blend", "groups": "tensor", "operator": "ties", "density": 0.4, "outer": "base"},
    "blend, tensors, linear": {"kind": "blend", "groups": "tensor", "operator": "linear"},
    "blend, tensors, slerp": {"kind": "blend", "groups": "tensor", "operator": "slerp"},
    "path": {"kind": "path", "anchor": "maths", "repeats": 2, "depth": [4, 16], **SCALED},
    "path, one parent": {"kind": "path", "anchor": "japanese", "parents": "anchor", "repeats": 1},
    "path, matrix": {"kind": "path", "scaling": "pair", "repeats": 1, **SCALED},
    "path, free ends": {"kind": "path", "ends": "free", "repeats": 3, "depth": [3, 9], **SCALED},
    "path, base": {"kind": "path", "anchor": "base", "parents": ["japanese"], "depth": [1.0, 2.5]},
    "stack": {"kind": "stack", "ranges": 3, "anchor": "japanese", **SCALED},
    "stack, bounded": {"kind": "stack", "ranges": 3, "depth": [5, 9]},
    "stack, one parent": {"kind": "stack", "parents": "anchor", "depth": [1.0, 1.5]},
    "repeat": {"kind": "repeat", "anchor": "maths", **SCALED},
    "repeat, one layer": {"kind": "repeat", "length": 1, "depth": [6, 8]},
    "swap": {"kind": "swap"},
    "swap, named": {"kind": "swap", "inside": "maths", "outside": "japanese", "transition": 1},
    "joint": {"kind": "joint", "blend": BLEND, "path": {"kind": "path", **SCALED}},
    "joint, stack": {
        "kind": "joint",
        "blend": {"operator": "ties", "density": [0.2, 1.0]},
        "path": {"kind": "stack", "ranges": 2},
    },
    "joint, experts too": {
        "kind": "joint",
        "blend": BLEND,
        "path": {"kind": "path", "repeats": 1, "parents": ["merged", "maths"]},
    },
    "joint, groups": {"kind": "joint", "blend": {**BLEND, "groups": 2}, "path": {"kind": "path", **SCALED}},
    "joint, groups and experts": {
        "kind": "joint",
        "blend": {**BLEND, "groups": "model"},
        "path": {"kind": "path", "repeats": 1, "parents": ["merged", "maths"]},
    },
    "joint, components": {
        "kind": "joint",
        "blend": {**BLEND, "groups": 2, "components": "split", "outer": "base"},
        "path": {"kind": "stack", "ranges": 2, **SCALED},
    },
} | {f"preset {name}": {} for name in preset_names("space")}
assert {plain.get("kind", "blend") for plain in SPACES.values()} == set(kinds_of(SpaceSpec)), "a space without a case"
ONE_OWNER = ("path", "stack", "repeat", "swap", "joint")


def parents(depth: int = 6) -> Parents:
    names = ("base", "maths", "japanese")
    return Parents(
        models={name: Folder(path=name, digest=f"digest of {name}") for name in names},
        base="base",
        experts=names[1:],
        layers=depth,
        outer=("embeddings", "norm", "head"),
        dtype="float16",
        tensors={
            **{
                f"model.layers.{layer}.{part}.weight": f"{layer}.{part}"
                for layer in range(depth)
                for part in COMPONENTS
            },
            **{"model.embed.weight": "embeddings", "model.norm.weight": "norm", "lm_head.weight": "head"},
        },
    )


def spec_of(name: str) -> dict[str, Any]:
    if not name.startswith("preset "):
        return SPACES[name]
    return read_yaml(preset_folder("space") / f"{name.removeprefix('preset ')}.yaml")


NAMES = [name for name in SPACES if "stages" not in spec_of(name)]


@pytest.fixture(params=NAMES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return bind(parse(SpaceSpec, spec_of(request.param), request.param), parents())


def genomes(space: SearchSpace, count: int, seed: int = 1) -> list[tuple[float, ...]]:
    """Random points: of long paths and of short ones, some far out or just at a border."""
    rng = random.Random(seed)

    def unit(power: float) -> float:
        return rng.choice((0.0, 1.0, 0.5)) if rng.random() < 0.1 else rng.random() ** power

    return [tuple(unit(power) for _ in space.genes) for power in rng.choices((0.3, 1, 3, 6), k=count)]


def test_every_genome_names_a_recipe_that_its_parents_can_make(space: SearchSpace) -> None:
    known = parents()
    for genome in genomes(space, 60):
        recipe = space.decode(genome)
        assert recipe.over(known, {name: name for name in recipe.parents}).digest() == recipe.digest()
        assert set(recipe.outer) == set(known.outer)
        assert all(layer.scale > 0 for layer in recipe.layers)
        assert len(recipe.origins()) == len(recipe.layers)


def test_what_is_decoded_is_encoded_to_the_same_recipe(space: SearchSpace) -> None:
    for genome in genomes(space, 40):
        recipe = space.decode(genome)
        again = space.encode(recipe)
        assert len(again) == len(space.genes)
        assert all(0 <= unit <= 1 for unit in again)
        assert space.decode(again).digest() == recipe.digest()


def test_every_gene_is_alive(space: SearchSpace) -> None:
    dead = set(range(len(space.genes)))
    rng = random.Random(2)
    for genome in genomes(space, 800, seed=3):
        digest = space.decode(genome).digest()
        for place in sorted(dead)[:40]:
            other = (*genome[:place], rng.random(), *genome[place + 1 :])
            if space.decode(other).digest() != digest:
                dead.discard(place)
        if not dead:
            break
    assert not dead, [space.genes[place].name for place in dead]


def test_what_a_search_may_begin_with_is_in_the_space(space: SearchSpace) -> None:
    priors = space.priors()
    digests = [space.decode(genome).digest() for genome in priors]
    assert len(set(digests)) == len(digests) <= 12
    for genome, digest in zip(priors, digests, strict=True):
        assert space.decode(space.encode(space.decode(genome))).digest() == digest


def test_a_path_search_begins_with_stacks_of_two_parents() -> None:
    plain = {"kind": "path", "anchor": "japanese", "parents": ["maths", "japanese"], "ends": "free"}
    space = bind(parse(SpaceSpec, plain, "space"), parents())
    paths = [
        [(layer.blend.sources[0].parent, layer.blend.sources[0].layer) for layer in space.decode(genome).layers]
        for genome in space.priors()
    ]
    assert [*(("maths", i) for i in range(3)), *(("japanese", i) for i in range(2, 6))] in paths
    assert [*(("japanese", i) for i in range(3)), *(("maths", i) for i in range(3, 6))] in paths


def test_genes_are_told_apart_by_name(space: SearchSpace) -> None:
    names = [gene.name for gene in space.genes]
    assert len(set(names)) == len(names)


def test_a_snapped_genome_names_the_same_recipe_where_levels_are_all_that_counts(space: SearchSpace) -> None:
    for genome in genomes(space, 20):
        snapped = tuple(gene.snapped(unit) for gene, unit in zip(space.genes, genome, strict=True))
        again = tuple(gene.snapped(unit) for gene, unit in zip(space.genes, snapped, strict=True))
        assert again == snapped
        assert space.decode(again).digest() == space.decode(snapped).digest()


@pytest.mark.parametrize("name", [name for name in NAMES if spec_of(name).get("kind") in ONE_OWNER])
def test_every_layer_of_the_model_has_one_owner_among_the_parents_layers(name: str) -> None:
    """A layer's tensors all come from one layer of the parents: none is left out, none is made twice."""
    space = bind(parse(SpaceSpec, spec_of(name), name), parents())
    for genome in genomes(space, 40):
        for layer in space.decode(genome).layers:
            for component in COMPONENTS:
                sources = layer.part(component).everything()
                assert {source.layer for source in sources} == {layer.blend.everything()[0].layer}
                assert len({source.parent for source in sources}) == len(sources)


@pytest.mark.parametrize("name", [name for name in NAMES if spec_of(name).get("kind") in ("path", "stack", "repeat")])
def test_a_search_begins_at_the_anchors_own_path(name: str) -> None:
    plain = spec_of(name)
    space, known = bind(parse(SpaceSpec, plain, name), parents()), parents()
    anchor = plain.get("anchor", "maths")
    if anchor in plain.get("parents", [anchor]) or plain.get("parents") == "anchor":
        recipe = unchanged(known, anchor)
        assert space.decode(space.encode(recipe)).digest() == recipe.digest()


def test_a_joint_search_begins_where_a_coefficient_search_does() -> None:
    joint, blend = (
        bind(parse(SpaceSpec, spec_of(name), name), parents()) for name in ("preset joint", "preset per-layer")
    )
    for name, recipe in fixed_recipes(parents()).items():
        try:
            blend.encode(recipe)
        except SpecError:
            continue
        assert joint.decode(joint.encode(recipe)).layers == blend.decode(blend.encode(recipe)).layers, name


def test_pruning_leaves_out_and_never_repeats() -> None:
    space = bind(parse(SpaceSpec, spec_of("preset prune-layers"), "space"), parents(8))
    assert len(space.genes) == 6, "one for each layer but the first and the last"
    for genome in genomes(space, 200):
        origins = space.decode(genome).origins()
        assert sorted(set(origins)) == list(origins)


def test_a_recipe_with_scales_is_in_no_space_without() -> None:
    scaled = bind(parse(SpaceSpec, {"kind": "path", "parents": "anchor", "repeats": 1, **SCALED}, "space"), parents())
    recipe = scaled.decode((0.9,) * len(scaled.genes))
    for plain in ({"kind": "blend"}, {"kind": "path", "parents": "anchor", "repeats": 1}):
        with pytest.raises(SpecError, match="scale"):
            bind(parse(SpaceSpec, plain, "space"), parents()).encode(recipe)


def test_leaving_out_layers_has_a_gene_for_each_but_the_first_and_the_last() -> None:
    space = bind(parse(SpaceSpec, spec_of("preset prune-layers"), "x"), parents())
    assert [gene.name for gene in space.genes] == [f"maths.layers.{layer}.in" for layer in range(1, 5)]
    whole = space.decode((1.0,) * 4)
    assert [layer.blend.sources[0].layer for layer in whole.layers] == list(range(6))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_paths_keep_to_their_bounds(data: st.DataObject) -> None:
    depth = data.draw(st.integers(2, 7), label="layers")
    known = parents(depth)
    low = data.draw(st.integers(2, 2 * depth), label="shortest")
    high = data.draw(st.integers(low, 2 * depth), label="longest")
    kinds = ({"kind": "path"}, {"kind": "path", "ends": "free"}, {"kind": "stack", "ranges": 2}, {"kind": "repeat"})
    plain = data.draw(st.sampled_from(kinds), label="space")
    if plain["kind"] == "repeat":
        low, high = min(low, depth), max(high, depth)
    space = bind(parse(SpaceSpec, {**plain, "depth": [low, high]}, "x"), known)
    unit = st.floats(0, 1)
    genome = data.draw(st.tuples(*(unit for _ in space.genes)), label="genome")
    recipe = space.decode(genome)
    assert low <= len(recipe.layers) <= high
    if plain.get("ends") != "free":
        ends = [recipe.layers[place].blend.sources[0] for place in (0, -1)]
        assert ends[0].layer == 0
        assert ends[1].layer == depth - 1


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"kind": "path", "anchor": "nobody"}, "space.anchor: 'nobody' is none of the models"),
        ({"kind": "path", "parents": ["nobody"]}, "space.parents: 'nobody' is none of the models"),
        ({"kind": "path", "depth": [9, 4]}, "space.depth: 9 to 4 hops"),
        ({"kind": "path", "repeats": 1, "depth": [40, 50]}, "space.depth: 40 to 50 hops"),
        ({"kind": "path", "scale": [1.1, 1.5]}, "unscaled, at 1"),
        ({"kind": "stack", "ranges": 4, "depth": [2, 3]}, "too few for 4 ranges"),
        ({"kind": "repeat", "parents": ["maths"]}, "a repeated block is the anchor's"),
        ({"kind": "repeat", "depth": [2, 4]}, "2 to 4 hops leave it out"),
        ({"kind": "repeat", "depth": [7, 9]}, "7 to 9 hops leave it out"),
        ({"kind": "path", "parents": []}, "space.parents"),
        ({"kind": "path", "scale": [1e-8, 1e8]}, "does not lie in 0.001 to 1000"),
        ({"kind": "joint", "blend": {}, "path": {"kind": "path", "anchor": "maths"}}, "another anchor than the blend"),
        ({"kind": "swap", "inside": "maths", "outside": "maths"}, "give a second expert"),
        ({"kind": "swap", "inside": "nobody"}, "space.inside: 'nobody'"),
        ({"kind": "joint", "blend": {}, "path": {"kind": "swap"}}, "path.kind"),
        ({"kind": "way"}, "'way'; give one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        bind(parse(SpaceSpec, plain, "run.yaml: space"), parents())
    text = str(refused.value)
    assert words in text.replace("path is 'swap'", "path.kind")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"kind": "repeat", "times": 10**9}, "space.times is 1000000000; input should be less than or equal to 2000"),
        ({"kind": "repeat", "times": 2000}, "its longest path has 12,000 layers, a merged model has 2,000 at most"),
        ({"kind": "path", "repeats": 10**6}, "space.repeats is 1000000;"),
        ({"kind": "path", "repeats": 2000}, "it has 24,000 genes, a search takes 5,000 at most"),
        ({"kind": "path", "scaling": "pair", "scale": [0.5, 1.5], "repeats": 450}, "it has 5,544 genes"),
        ({"kind": "path", "repeats": 270}, "its longest path has 3,241 layers"),
        ({"kind": "stack", "ranges": 10**5}, "space.ranges is 100000;"),
        ({"kind": "stack", "ranges": 2000, "depth": [2, 9]}, "its longest path has 12,000 layers"),
        ({"kind": "swap", "transition": 10**9}, "space.transition is 1000000000;"),
        ({"groups": 10**6}, "space.groups: 1000000 is more than the model's 6 layers"),
        ({"groups": [[0, 10**9]]}, "space.groups is [[0, 1000000000]];"),
        ({"weight": [-1e308, 1e308]}, "space.weight.0 is -1e+308; input should be greater than or equal to -1000000"),
        ({"weight": 1e7}, "space.weight is 10000000.0; give a number"),
        ({"operator": {"kind": "ties", "lambda": 1e300}}, "space.operator.lambda is 1e+300;"),
        ({"kind": "joint", "blend": {}, "path": {"kind": "path", "repeats": 2000}}, "it has 12,000 genes"),
    ],
)
def test_what_is_too_large_is_refused_with_its_number_at_once(plain: dict[str, Any], words: str) -> None:
    started = time.perf_counter()
    with pytest.raises(SpecError) as refused:
        bind(parse(SpaceSpec, plain, "run.yaml: space"), parents())
    assert words in str(refused.value)
    assert time.perf_counter() - started < 2


def test_the_matrix_of_two_models_of_32_layers_fits() -> None:
    matrix = {"kind": "path", "repeats": 3, "scaling": "pair", "scale": [0.5, 1.5], "parents": ["maths", "japanese"]}
    assert 4096 < len(bind(parse(SpaceSpec, matrix, "x"), parents(32)).genes) <= 5000


def test_recipes_of_all_pairs_are_not_made_of_many_experts() -> None:
    def count(experts: int) -> int:
        names = tuple(f"e{number}" for number in range(experts))
        models = {name: Folder(path=name, digest=name) for name in ("base", *names)}
        return len(fixed_recipes(parents().model_copy(update={"models": models, "experts": names})))

    assert count(3) == 3 + 1 + 1 + 3 * 4 + 2
    assert count(8) == 8 + 1 + 1 + 3 + 28 + 2
    assert count(30) == 30 + 1 + 1 + 3 + 2


def encodable(space: SearchSpace) -> Callable[[str], bool]:
    def check(name: str) -> bool:
        try:
            space.encode(fixed_recipes(parents())[name])
        except SpecError:
            return False
        return True

    return check


@pytest.mark.parametrize(
    ("plain", "inside", "outside"),
    [
        ({"kind": "path", "anchor": "maths"}, ["maths"], ["japanese", "base", "uniform average", "ties 0.5"]),
        ({"kind": "swap"}, ["maths", "japanese"], ["base", "uniform average", "task arithmetic 1.0"]),
        ({"kind": "repeat", "anchor": "japanese"}, ["japanese"], ["maths"]),
    ],
)
def test_a_space_knows_what_it_holds(plain: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    check = encodable(bind(parse(SpaceSpec, plain, "x"), parents()))
    assert all(map(check, inside))
    assert not any(map(check, outside))
