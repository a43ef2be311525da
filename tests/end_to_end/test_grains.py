"""Candidates and recipes with a side file of coefficients: kept, verified, exported, merged again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import DEMO_MODELS, Typed, edited, refused, small_fitness

from evomerge.assemble import load
from evomerge.assemble.experts import with_recipes
from evomerge.assemble.folders import StagedFile, StagedRun
from evomerge.checkpoint import Shares, open_parents
from evomerge.errors import SpecError
from evomerge.events import Asked
from evomerge.export.recipe_table import recipe_table
from evomerge.recipe import Coefficients, Grain, Recipe, own_weights
from evomerge.report import grains
from evomerge.space import BlendSpec, JointSpec, PathSpec, SpaceSpec, SwapSpec, bind
from evomerge.spec import StagedSpec, load_spec
from evomerge.store import RunStore

Cli = Callable[..., Typed]
UP = "model.layers.3.mlp.up_proj.weight"


def refined(run: Path, grain: Grain) -> tuple[Recipe, Coefficients]:
    """The best of a run, its weights moved at random."""
    results = load(run)
    assert results.best is not None
    recipe = results.recipe(results.best.number)
    opened = open_parents(str(DEMO_MODELS / "base"), {n: str(DEMO_MODELS / n) for n in ("maths", "japanese")}, 0)
    start = Shares(recipe, opened.anatomy).coefficients(None if grain == "tensor" else grain)
    rng = np.random.default_rng(3)
    moved = {n: (a + 0.1 * rng.standard_normal(a.shape)).astype(np.float32) for n, a in start.arrays.items()}
    return recipe, Coefficients(grain, moved)


@pytest.fixture
def learned(copy_of_run: Callable[[str], Path]) -> Callable[[Grain], tuple[Path, int]]:
    """A run with one more candidate, whose weights differ by tensor, column or row, and its number."""

    def made(grain: Grain) -> tuple[Path, int]:
        run = copy_of_run("one")
        recipe, coefficients = refined(run, grain)
        number, store = len(load(run).rows), RunStore(run, write=True)
        recipe = recipe.refined(coefficients)
        if recipe.arrays is not None:
            store.side_files.keep(coefficients)
        store.append(Asked(number=number, origin="search", genome=None, digest=recipe.digest(), recipe=recipe))
        store.close()
        return run, number

    return made


@pytest.fixture
def exported(learned: Callable[[Grain], tuple[Path, int]], cli: Cli, tmp_path: Path) -> Path:
    run, number = learned("column")
    found = cli("export", run, "--pick", f"number:{number}", "--out", tmp_path / "M")
    assert found.status == 0, found.err
    assert "no mergekit.yml: the recipe has weights by column" in found.err + found.out
    shutil.rmtree(run)
    return tmp_path / "M"


@pytest.mark.parametrize("grain", ["tensor", "column", "row"])
def test_a_candidate_is_exported_and_merged_again(
    grain: Grain, learned: Callable[[Grain], tuple[Path, int]], cli: Cli, tmp_path: Path
) -> None:
    run, number = learned(grain)
    assert cli("show", run).status == 0
    pick = ("export", run, "--pick", f"number:{number}")
    assert cli(*pick, "--out", tmp_path / "M", "--format", "model").status == 0
    assert cli(*pick, "--out", tmp_path / "R", "--format", "recipe").status == 0
    refused(
        cli(*pick, "--out", tmp_path / "K", "--format", "mergekit"), f"weights by {grain}", "export the model itself"
    )
    assert (tmp_path / "R/coefficients.safetensors").exists() == (grain != "tensor")
    assert load(run).recipe(number).digest() == load(run).rows[number].recipe
    shutil.rmtree(run)
    (tmp_path / "R").rename(tmp_path / "moved")
    assert cli("merge", tmp_path / "moved/recipe.yaml", "--out", tmp_path / "again").status == 0
    for name in ("model.safetensors", "recipe.yaml"):
        assert (tmp_path / "M" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    card = (tmp_path / "M/README.md").read_text()
    assert "| layer 3 |" in card
    assert " to " in card


def test_a_merge_of_a_recipe_with_a_side_file_is_an_expert(
    exported: Path, run_file: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    """Named by a run file beside it; the same marks as the folder, and its own recipe travels with an export."""
    said = []
    for source in ("M/recipe.yaml", "M"):
        models = {"base": str(DEMO_MODELS / "base"), "experts": {"maths": str(DEMO_MODELS / "maths"), "mix": source}}
        path, out = run_file(f"{len(said)}.yaml", models=models, budget={"evaluations": 5}), tmp_path / f"R{len(said)}"
        found = cli("search", path, "--out", out)
        assert found.status == 0, found.err
        said.append([load(out).marks(number, "confirm") for number in load(out).rows])
    assert said[0] == said[1]
    shutil.rmtree(exported)
    (tmp_path / "R0").rename(tmp_path / "R2")
    assert cli("resume", tmp_path / "R2", "--budget", "7").status == 0, "a run has what it needs of the recipe's files"
    results = load(tmp_path / "R2")
    merged = next(number for number in results.rows if results.recipe(number).used() == {"base", "maths", "mix"})
    pick = ("export", tmp_path / "R2", "--pick", f"number:{merged}", "--format", "recipe")
    assert cli(*pick, "--out", tmp_path / "mixed").status == 0
    (side,) = (tmp_path / "mixed").glob("coefficients-*.safetensors")
    plain = yaml.safe_load((tmp_path / "mixed/recipe.yaml").read_text())
    assert plain["parents"]["mix"]["arrays"]["path"] == side.name
    shutil.rmtree(tmp_path / "R2")
    assert cli("merge", tmp_path / "mixed/recipe.yaml", "--out", tmp_path / "last").status == 0
    assert cli("search", tmp_path / "mixed/run.yaml", "--budget", "5", "--out", tmp_path / "R3").status == 0


def test_a_run_in_stages_has_what_later_ones_need(
    exported: Path, run_file: Callable[..., Path], tmp_path: Path
) -> None:
    models = {"base": str(DEMO_MODELS / "base"), "experts": {"mix": "M/recipe.yaml"}}
    spec = load_spec(run_file(models=models, space="two-stage"))
    spec = spec.model_copy(update={"models": with_recipes(spec.models, lambda _: None)})
    assert isinstance(spec, StagedSpec)
    StagedRun.create(tmp_path / "S", StagedFile(evomerge="", spec=spec))
    shutil.rmtree(exported)
    mix = StagedRun.load(tmp_path / "S").file.spec.models.experts["mix"]
    assert isinstance(mix, Recipe)
    assert mix.coefficients() is not None


def test_what_was_kept_and_never_named_is_nobodys(
    copy_of_run: Callable[[str], Path], cli: Cli, finished: dict[str, Path]
) -> None:
    """As where a process was killed in between; the next one keeps the same again."""
    run = copy_of_run("one")
    recipe, coefficients = refined(run, "row")
    recipe = recipe.refined(coefficients)
    for _ in range(2):
        store = RunStore(run, write=True)
        store.side_files.keep(coefficients)
        store.close()
        assert cli("show", run, "--json").out == cli("show", finished["one"], "--json").out
    found = RunStore(run).side_files.read(recipe)
    assert found is not None
    assert found.content == coefficients.content


def test_a_recipe_is_scored_as_its_folder_is(exported: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(small_fitness()))
    said = [
        cli("score", model, "--fitness", tmp_path / "f.yaml", "--json")
        for model in (exported / "recipe.yaml", exported)
    ]
    assert said[0].status == 0, said[0].err
    assert said[0].out == said[1].out


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "lost": (lambda path: path.unlink(), "cannot be read"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "digests differ"),
    "flipped": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), "digests differ"),
    "empty": (lambda path: path.write_bytes(b""), "digests differ"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is no file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_side_file_is_refused(
    kind: str, learned: Callable[[Grain], tuple[Path, int]], cli: Cli, exported: Path, tmp_path: Path
) -> None:
    damage, said = DAMAGE[kind]
    run, _ = learned("row")
    (side,) = (run / "coefficients").iterdir()
    damage(side)
    before = (run / "journal.jsonl").read_bytes()
    for command in ("show", "resume"):
        refused(cli(command, run), side.name, said, f"line {len(before.splitlines())} of the journal")
    assert (run / "journal.jsonl").read_bytes() == before
    damage(exported / "coefficients.safetensors")
    refused(cli("merge", exported / "recipe.yaml", "--out", tmp_path / "N"), "M/coefficients.safetensors", said)
    assert not (tmp_path / "N").exists()


def test_recipes_whose_weights_do_not_fit_are_refused(exported: Path, cli: Cli, tmp_path: Path) -> None:
    recipe = exported / "recipe.yaml"
    kept = recipe.read_text()

    def side(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[dict[str, object]], object]:
        def write(plain: dict[str, object]) -> None:
            arrays = dict(Coefficients.of_bytes((exported / "coefficients.safetensors").read_bytes(), "").arrays)
            change(arrays)
            other = Coefficients("column", arrays)
            (exported / "other.safetensors").write_bytes(other.content)
            plain["arrays"] = {"path": "other.safetensors", "digest": other.digest(), "grain": "column"}

        return write

    for change, words in (
        (side(lambda a: a.update({UP: a[UP][:, 1:]})), ["other.safetensors: model.layers.3", "numbers a source"]),
        (side(lambda a: a.update({UP: a[UP][:1]})), ["other.safetensors: model.layers.3", "for 1 sources; give 2"]),
        (side(lambda a: a.update(nobody=a[UP])), ["other.safetensors: nobody is no tensor"]),
        (side(lambda a: a.update({UP: a[UP] * np.float32("inf")})), ["other.safetensors holds no merge coefficients"]),
        (lambda p: p["arrays"].update(grain="row"), ["has coefficients by column, the recipe says row"]),
        (lambda p: p["arrays"].update(path="recipe.yaml"), ["recipe.yaml", "digests differ"]),
        (lambda p: p["arrays"].update(digest="sha256:0"), ["arrays.digest"]),
        (lambda p: p.update(tensors={UP: [0.5, 0.5]}), ["is in tensors of the recipe too"]),
        (lambda p: p.update(tensors={"lm_heads": [0.5, 0.5]}), ["tensors.lm_heads is no tensor"]),
        (lambda p: p.update(tensors={"parent": [0.5, 0.5]}), ["tensors.parent is no tensor"]),
        (lambda p: p.update(tensors={UP: [0.5]}, arrays=None), [f"tensors.{UP} has numbers for 1 sources; give 2"]),
        (lambda p: p.update(tensors={UP: [0.5, 1e9]}, arrays=None), [f"tensors.{UP}.1"]),
    ):
        recipe.write_text(kept)
        refused(cli("merge", edited(recipe, change), "--out", tmp_path / "N"), str(recipe), *words)  # type: ignore[arg-type]
    assert not (tmp_path / "N").exists()


SPACES: dict[str, SpaceSpec] = {
    "blend": BlendSpec(),
    "path": PathSpec(),
    "swap": SwapSpec(),
    "joint": JointSpec(blend=BlendSpec(), path=PathSpec()),
}


@pytest.mark.parametrize("space", SPACES)
def test_a_space_of_layers_has_no_place_for_them(space: str, finished: dict[str, Path]) -> None:
    recipe, coefficients = refined(finished["one"], "tensor")
    parents = load(finished["one"]).file.parents

    with pytest.raises(SpecError, match="weights for single tensors"):
        bind(SPACES[space], parents).encode(recipe.refined(coefficients))


def test_tables_and_figures_show_the_weights(finished: dict[str, Path], tmp_path: Path) -> None:
    recipe, coefficients = refined(finished["one"], "column")
    recipe = recipe.refined(coefficients)
    assert recipe.arrays is not None
    (tmp_path / recipe.arrays.path).write_bytes(coefficients.content)
    recipe = recipe.model_copy(update={"arrays": recipe.arrays.at(tmp_path)})
    mean = float(coefficients.arrays[UP][0].mean())
    own = own_weights(recipe)
    figure = grains.coefficients(own)
    first = json.loads(figure.to_json())["data"][0]
    column, row = first["x"].index("3"), first["y"].index("mlp.up_proj.weight")
    assert abs(np.array(first["z"], dtype=float)[row, column] - mean) < 1e-6
    layer = np.concatenate([each.weights for each in own if (each.layer, each.voice) == (3, "maths")])
    assert f"| layer 3 | {layer.mean():.3g} ({layer.min():.3g} to {layer.max():.3g}) |" in recipe_table(recipe)


def test_a_search_with_genes_for_every_tensor(run_file: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    space = {"kind": "blend", "groups": "tensor", "outer": "base"}
    out = tmp_path / "R"
    assert cli("search", run_file(space=space, budget={"evaluations": 30}), "--out", out).status == 0
    results = load(out)
    searched = [row.number for row in results.rows.values() if row.origin == "search"]
    assert searched
    recipe = results.recipe(searched[0])
    assert {*recipe.tensors} == {name for name, at in results.file.parents.tensors.items() if "." in at}
    assert len({*recipe.tensors.values()}) > 10
    again = bind(BlendSpec.model_validate(space), results.file.parents)
    assert again.decode(again.encode(recipe)).digest() == recipe.digest()
    assert cli("report", out, "--out", tmp_path / "page.html").status == 0
    found = cli("export", out, "--pick", f"number:{searched[0]}", "--out", tmp_path / "M")
    assert found.status == 0, found.err
    assert "no mergekit.yml: the recipe has weights by tensor" in found.err + found.out
    assert cli("merge", tmp_path / "M/recipe.yaml", "--out", tmp_path / "N").status == 0
    assert (tmp_path / "M/model.safetensors").read_bytes() == (tmp_path / "N/model.safetensors").read_bytes()
    start = run_file("next.yaml", space=space, budget={"evaluations": 24}, start=[str(tmp_path / "M/recipe.yaml")])
    found = cli("search", start, "--out", tmp_path / "S")
    assert found.status == 0, found.err
    digests = [row.recipe for row in load(tmp_path / "S").rows.values()]
    assert recipe.digest() in digests


def test_only_spaces_by_tensor_know_their_names(finished: dict[str, Path]) -> None:
    assert not load(finished["one"]).file.parents.tensors
