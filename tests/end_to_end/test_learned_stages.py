"""Learning and evolution in turn: what one found is where the other begins, or one more parent of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import DEMO_MODELS, ROOT, Typed, small_fitness
from transformers import AutoModelForCausalLM

from evomerge.assemble import load, search
from evomerge.assemble.learn import _layout
from evomerge.assemble.stages import kept
from evomerge.assemble.start import wanted_genomes
from evomerge.checkpoint import open_parents
from evomerge.errors import SpecError
from evomerge.recipe import Grain, Recipe
from evomerge.space import BlendSpec, bind, folded, unchanged
from evomerge.space.blend import BlendSpace
from evomerge.spec import StagedSpec, load_spec

Cli = Callable[..., Typed]
NAMES = ("maths", "japanese")
LEARN = {"space": "per-layer", "optimizer": {"kind": "gradient", "held": 8}, "budget": {"item_evaluations": 700}}
SUMS = {
    "include": [str(ROOT / "fitness/demo")],
    "objectives": {"math_ja": {"task": "math_ja", "metric": "acc"}},
    "items": {"search": 24, "confirm": 12, "group": "group"},
}
BOTH = SUMS | {"objectives": {name: {"task": name, "metric": "acc"} for name in ("math_ja", "lists")}}


def staged(folder: Path, *stages: dict[str, object], **changes: object) -> Path:
    plain: dict[str, object] = {
        "models": {"base": str(DEMO_MODELS / "base"), "experts": {name: str(DEMO_MODELS / name) for name in NAMES}},
        "fitness": small_fitness("math_ja", "lists"),
        "seed": 3,
        "stages": list(stages),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(plain | changes))
    return path


def learned(run: Path) -> list[Recipe]:
    results = load(run)
    return [results.recipe(n) for n, asked in results.state.candidates.items() if asked.tradeoff is not None]


def test_a_learned_front_seeds_an_evolution_and_what_that_finds_is_learned_on(tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    evolve = {"space": "per-layer", "optimizer": "nsga2", "budget": {"evaluations": 18}}
    stages = [
        LEARN | {"name": "learned", "keep": 9, "fitness": BOTH, "budget": {"item_evaluations": 1300}},
        evolve | {"name": "evolved", "parents": "experts"},
        LEARN | {"name": "again", "parents": "experts", "fitness": SUMS},
    ]
    search(load_spec(staged(tmp_path, *stages)), run)
    first, evolved, again = (load(run / name) for name in ("1-learned", "2-evolved", "3-again"))
    tensors = open_parents(str(DEMO_MODELS / "base"), {n: str(DEMO_MODELS / n) for n in NAMES}, 0).parents.tensors
    space = bind(evolved.file.spec.space, evolved.file.parents)
    points = learned(run / "1-learned")
    assert len(points) == 9
    for point in points:
        layer = folded(point, tensors).layers[2].blend
        own = point.tensors["model.layers.2.mlp.up_proj.weight"]
        np.testing.assert_allclose([source.weight for source in layer.sources], own, atol=1e-6)
    wanted = [space.encode(folded(recipe, tensors)) for recipe in kept(first, [f"{n}" for n in range(9)]).values()]
    assert set(evolved.file.start) == set(wanted)
    assert set(wanted) <= evolved.state.genomes, "NSGA-II was asked for all of them"
    assert set(again.file.start) <= again.state.genomes
    looks = again.state.learned
    assert looks[-1].step == looks[-1].course.steps > 0
    begun = again.state.candidates[looks[0].begun[0]]
    assert begun.genome is not None
    assert len(learned(run / "3-again")) == 1


def test_the_preset_learns_then_searches_paths_through_what_was_learned(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    first, second, third = yaml.safe_load((ROOT / "search_spaces/learned-path.yaml").read_text())["stages"]
    first = first | {"space": {"groups": "model", "grain": "column"}}  # It would be tensor, of so few items.
    search(load_spec(staged(tmp_path, first, second, third, fitness=SUMS, budget={"item_evaluations": 2000})), run)
    results, before, after = (load(run / name) for name in ("2-path", "1-learned", "3-again"))
    assert (results.file.spec.optimizer.kind, results.file.spec.space.kind) == ("nsga2", "path")
    assert results.file.why is not None
    merged = [n for n in results.rows if "learned 1" in results.recipe(n).used()]
    assert len(merged) > 3
    assert len({len(results.recipe(n).layers) for n in merged}) > 1
    (best,) = learned(run / "1-learned")
    assert best.arrays is not None
    depth = len(kept(results, ["path 1"])["path 1"].layers)
    assert after.file.parents.layers == depth
    assert after.file.parents.experts == (*NAMES[::-1], "path 1")
    coarse = before.file.spec.model_copy(update={"space": BlendSpec(groups=2)})
    with pytest.raises(SpecError, match=r"learned 1, which this stage begins with, is not in its space .*parents: all"):
        wanted_genomes(coarse, bind(coarse.space, before.file.parents), before.file.parents, {"learned 1": best})
    shutil.rmtree(run / "1-learned")
    again = run / "2-path"
    found = cli("export", again, "--pick", f"number:{merged[-1]}", "--out", tmp_path / "M", "--format", "model")
    assert found.status == 0, found.err


def test_what_a_path_left_of_the_layers_is_learned_on(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    shallow = {
        "kind": "path",
        "anchor": "maths",
        "parents": ["maths", "japanese"],
        "depth": [3, 3],
        "scale": [0.8, 1.2],
    }
    stages = [
        {"name": "path", "space": shallow, "optimizer": "random", "budget": {"evaluations": 8}},
        LEARN | {"name": "learned", "space": {"groups": "model", "grain": "tensor"}, "along": "path 1"},
    ]
    search(load_spec(staged(tmp_path, *stages, fitness=SUMS)), run)
    path, results = load(run / "1-path"), load(run)
    (best,) = kept(path, ["path 1"]).values()
    assert len(best.layers) == 3
    parents = results.file.parents
    assert (parents.layers, parents.experts) == (3, ("japanese", "maths", "path 1"))
    rows = {row.name: row for row in results.baselines}
    assert path.best is not None
    assert rows["path 1"].confirmed == path.best.confirmed, "it is the same model as before"
    (recipe,) = learned(run)
    assert recipe.origins() == best.origins()
    assert {len(weights) for weights in recipe.tensors.values()} == {3}
    looks = results.state.learned
    assert min(look.losses["math_ja"] for look in looks) < looks[0].losses["math_ja"]
    found = cli("export", run, "--out", tmp_path / "M", "--format", "model")
    assert found.status == 0, found.err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "M", dtype="float32")
    assert model.config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"along": "maths"}, "stages.1.along: 'maths' is not the best of the stage before; write path 1"),
        ({"along": "path 1", "parents": "kept"}, "stages.1.parents: kept has no meaning with along"),
        ({"along": "path 1", "start": ["regmean"]}, "stages.1.start: regmean reads models as they are"),
    ],
)
def test_along_what_cannot_be_is_refused(cli: Cli, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    stages = [{"name": "path", "space": "dataflow", "budget": {"evaluations": 8}}, LEARN | changes]
    found = cli("plan", staged(tmp_path, *stages, fitness=SUMS))
    assert found.status == 2
    assert said in found.err


@pytest.mark.parametrize("grain", ["tensor", "column"])
def test_what_is_learned_keeps_the_order_of_the_models_tensors(grain: Grain) -> None:
    """States of a descent are vectors: in another order a resumed run would go on with other tensors' weights."""
    files = open_parents(str(DEMO_MODELS / "base"), {n: str(DEMO_MODELS / n) for n in NAMES}, 0)
    space = BlendSpace(BlendSpec(groups="model", grain=grain), files.parents)
    layout = _layout(space, space.frame((0.5,) * len(space.genes)), files.anatomy)
    assert [block.name for block in layout.blocks] == list(files.anatomy.places)


def test_whose_objective_it_is_is_forgotten_with_the_expert(tmp_path: Path) -> None:
    experts = {name: {"path": str(DEMO_MODELS / name), "objective": "math_ja"} for name in NAMES}
    stages = [LEARN | {"name": "learned"}, {"space": "per-layer", "parents": "kept", "budget": {"evaluations": 8}}]
    models = {"base": str(DEMO_MODELS / "base"), "experts": experts}
    spec = load_spec(staged(tmp_path, *stages, models=models, fitness=SUMS))
    files = open_parents(str(DEMO_MODELS / "base"), {"maths": str(DEMO_MODELS / "maths")}, 0)
    assert isinstance(spec, StagedSpec)
    assert set(spec.run(0, {}).models.owners) == set(NAMES)
    assert spec.run(1, {"learned 1": unchanged(files.parents, "maths")}).models.owners == {}
