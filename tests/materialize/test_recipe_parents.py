"""Recipes as parents: each is the model that it would be exported as, bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.errors import SpecError
from evomerge.export import export_recipe
from evomerge.materialize import LiveModel, Needs
from evomerge.recipe import Blend, Folder, Layer, Recipe, Source
from evomerge.space import BlendSpec, bind, fixed_recipes, unchanged
from evomerge.space.hops import Hop, recipe_of

CPU = torch.device("cpu")
BASE = str(DEMO_MODELS / "base")
EXPERTS = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}


@pytest.fixture(scope="module")
def files() -> ParentFiles:
    return open_parents(BASE, EXPERTS, 0)


def mixed(files: ParentFiles, operator: str = "ties", shift: float = 0.0, dtype: str = "float16") -> Recipe:
    density = ', "density": [0.2, 1.0]' if operator == "ties" else ""
    space = bind(BlendSpec.model_validate_json(f'{{"operator": "{operator}", "groups": 2{density}}}'), files.parents)
    recipe = space.decode(tuple((0.1 + 0.13 * i + shift) % 1 for i in range(len(space.genes))))
    return recipe.model_copy(update={"dtype": dtype})


def pruned(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"layers": (*recipe.layers[:2], *recipe.layers[3:])})


def weights(files: ParentFiles, recipe: Recipe) -> dict[str, torch.Tensor]:
    live = LiveModel(files, CPU)
    live.load(recipe)
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


def same_as_its_folder(recipe: Recipe, opened: ParentFiles, tmp_path: Path) -> None:
    """Every fixed recipe and some blends come out the same over the recipe and over the folder it is exported to."""
    export_recipe(recipe, opened, tmp_path / "mix")
    by_recipe = open_parents(BASE, {"maths": EXPERTS["maths"], "mix": recipe}, 0)
    by_folder = open_parents(BASE, {"maths": EXPERTS["maths"], "mix": str(tmp_path / "mix")}, 0)
    over = list(fixed_recipes(by_recipe.parents).values())
    over += [mixed(by_recipe, operator) for operator in ("linear", "slerp", "task_arithmetic", "ties")]
    for one in over:
        other = one.over(by_folder.parents, {name: name for name in one.parents})
        first, second = weights(by_recipe, one), weights(by_folder, other)
        assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_recipe_as_a_parent_is_the_folder_it_is_exported_to(dtype: str, files: ParentFiles, tmp_path: Path) -> None:
    same_as_its_folder(mixed(files, dtype=dtype), files, tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_path_as_a_parent_is_the_folder_it_is_exported_to(dtype: str, files: ParentFiles, tmp_path: Path) -> None:
    """Scales are folded into the weights that others are merged with."""
    order = [
        ("maths", 0, 1.3),
        ("maths", 2, 0.7),
        ("japanese", 2, 1.0),
        ("maths", 2, 1.2),
        ("maths", 4, 1.0),
        ("maths", 5, 0.9),
    ]
    path = recipe_of(files.parents, "maths", [Hop(*hop) for hop in order]).model_copy(update={"dtype": dtype})
    assert len(set(path.gains())) == 4
    same_as_its_folder(path, files, tmp_path)


def test_recipes_may_be_made_of_recipes(files: ParentFiles, tmp_path: Path) -> None:
    first = open_parents(BASE, {"maths": EXPERTS["maths"], "mix": mixed(files, dtype="bfloat16")}, 0)
    second = open_parents(BASE, {"mix": mixed(files), "twice": mixed(first, "task_arithmetic", 0.3)}, 0)
    same_as_its_folder(mixed(second, "task_arithmetic", 0.7), second, tmp_path)


def test_a_folder_is_opened_once(files: ParentFiles) -> None:
    recipe = mixed(files)
    opened = open_parents(BASE, {"maths": EXPERTS["maths"], "one": recipe, "two": mixed(files, shift=0.2)}, 0)
    assert sorted(opened.checkpoints) == ["base", "maths", "one/japanese"]
    assert opened.parents.models["one"].content() == recipe.digest()
    unread = {name: parent.model_copy(update={"digest": None}) for name, parent in recipe.parents.items()}
    by_hand = open_parents(BASE, {"maths": EXPERTS["maths"], "one": recipe.model_copy(update={"parents": unread})}, 0)
    assert sorted(by_hand.checkpoints) == ["base", "maths", "one/japanese"]
    assert by_hand.parents.models["one"].content() == recipe.digest(), "digests are filled in"


def test_recipes_alone_will_do(files: ParentFiles, tmp_path: Path) -> None:
    alone = open_parents(None, {"one": mixed(files, dtype="bfloat16"), "two": mixed(files, shift=0.2)}, 0)
    assert alone.parents.dtype == "bfloat16"
    export_recipe(unchanged(alone.parents, "one"), alone, tmp_path / "M")
    export_recipe(mixed(files, dtype="bfloat16"), files, tmp_path / "N")
    assert (tmp_path / "M/model.safetensors").read_bytes() == (tmp_path / "N/model.safetensors").read_bytes()
    assert (tmp_path / "M/config.json").read_bytes() == (tmp_path / "N/config.json").read_bytes()


def test_a_recipe_counts_as_the_model_it_makes(files: ParentFiles) -> None:
    before = Needs.of(files, 4)
    whole = Needs.of(open_parents(BASE, {**EXPERTS, "mix": mixed(files)}, 0), 4)
    assert whole.parents - before.parents == files.size()
    wide = Needs.of(open_parents(BASE, {**EXPERTS, "mix": mixed(files, dtype="float32")}, 0), 4)
    assert wide.parents - before.parents == 2 * files.size()
    short = Needs.of(open_parents(BASE, {**EXPERTS, "mix": pruned(mixed(files))}, 0), 4)
    assert 0 < short.parents - before.parents < files.size()


def test_a_recipe_of_another_depth_is_itself_and_is_averaged_with_nothing(files: ParentFiles) -> None:
    short = pruned(mixed(files))
    opened = open_parents(BASE, {"maths": EXPERTS["maths"], "short": short}, 0)
    fixed = fixed_recipes(opened.parents)
    assert list(fixed) == ["base", "maths", "short"], "one expert of the base's depth is nothing to average"
    assert len(fixed["short"].layers) == files.parents.layers - 1
    made, direct = weights(opened, fixed["short"]), weights(files, short)
    assert all(torch.equal(made[name], tensor) for name, tensor in direct.items())
    three = open_parents(BASE, {**EXPERTS, "short": short}, 0)
    average = fixed_recipes(three.parents)["uniform average"]
    assert average.used() == {"maths", "japanese"}
    with pytest.raises(SpecError, match="'short' has 5 layers, the model folders have 6"):
        bind(BlendSpec(), three.parents)


def edited(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update=changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: edited(r, parents={**r.parents, "maths": Folder(path=EXPERTS["maths"], digest="sha256:0")}),
            "models.experts.mix.parents.maths: .*maths is not the model this recipe was written for",
        ),
        (
            lambda r: edited(r, parents={**r.parents, "maths": Folder(path="/nowhere", digest="sha256:0")}),
            "models.experts.mix.parents.maths: /nowhere does not exist",
        ),
        (
            lambda r: edited(r, layers=(Layer(blend=Blend(sources=(Source(parent="maths", layer=6),))),)),
            "models.experts.mix: layers.0: maths gives layer 6; write a layer from 0 to 5",
        ),
        (
            lambda r: edited(r, outer={"norm": r.outer["norm"]}),
            "models.experts.mix: outer.embeddings is missing",
        ),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_a_parent(change: Callable[[Recipe], Recipe], words: str, files: ParentFiles) -> None:
    with pytest.raises(SpecError, match=words):
        open_parents(BASE, {"mix": change(mixed(files))}, 0)
