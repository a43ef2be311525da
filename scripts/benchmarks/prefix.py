"""What it saves to run layers once that candidates share: paths under local mutations, late layers, and no gain."""

import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measure import MODELS, demo_run, table
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.evaluate import EvaluatorFactory
from evomerge.materialize import LiveModel
from evomerge.recipe import Blend, Layer, Recipe, Source, TaskArithmetic
from evomerge.schedule import hop_order
from evomerge.score.loglikelihood import LikelihoodPlan
from evomerge.score.rows import Request
from evomerge.space import bind
from evomerge.trial import Draw

LAYERS = 16
WIDTH = 256
TOKENS = 1536
STATE = TOKENS * WIDTH * 4
"""Bytes of what one layer gives for all items."""
POPULATION, GENERATIONS = 16, 10
Path_ = tuple[tuple[str, int], ...]


@dataclass
class Contestant:
    """A live model of its own, with so much memory for states, and the CPU seconds it took."""

    live: LiveModel
    plan: LikelihoodPlan
    seconds: float = 0.0
    each: list[float] = field(default_factory=list)

    def score(self, recipe: Recipe) -> float:
        """Log-likelihood of all items under a candidate."""
        started = time.process_time()
        self.live.load(recipe)
        totals, _ = self.plan.run(self.live.model, self.live.forward)
        self.seconds += time.process_time() - started
        return sum(totals)

    def row(self, name: str, whole: "Contestant") -> Sequence[object]:
        """Its line in a table, beside one that runs every layer."""
        prefix = self.live.prefix
        saved = (prefix.run + prefix.reused) / prefix.run
        return name, saved, self.seconds, whole.seconds / self.seconds, prefix.states.bytes / 2**20


def bench_prefix() -> None:
    """The three."""
    with tempfile.TemporaryDirectory() as temporary:
        files = make_parents(Path(temporary))
        head = ("", "layers saved, times", "CPU s", "times faster", "MiB of states")
        table(f"paths of {LAYERS} layers, {GENERATIONS} generations of {POPULATION}", [head, *paths(files)])
        table(f"coefficients of the last quarter of {LAYERS} layers", [head, *late_layers(files)])
        overhead = measure_overhead(Path(temporary))
    table("a search over all layers' coefficients, which shares nothing", [("times the CPU of a plain call", overhead)])


def make_parents(folder: Path) -> ParentFiles:
    """A base and two near relatives with random weights."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS, "vocab_size": 576}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model("llama", num_attention_heads=4, max_position_embeddings=128, **sizes, **special)
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.005)
        model.save_pretrained(folder / name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MODELS / "base" / file, folder / name)
    return open_parents(str(folder / "base"), {name: str(folder / name) for name in ("one", "two")}, 0)


def contestants(files: ParentFiles, rooms: Mapping[str, int]) -> dict[str, Contestant]:
    """Live models with so many bytes for states, by name; all are put to the same items."""
    rng = random.Random(0)
    asked = [
        Request(tuple(rng.randrange(3, 500) for _ in range(60)), tuple(rng.randrange(3, 500) for _ in range(5)))
        for _ in range(TOKENS // 64)
    ]
    found = {}
    for name, room in rooms.items():
        live = LiveModel(files, torch.device("cpu"), reuse=room, compiled=False)
        found[name] = Contestant(live, LikelihoodPlan(asked, live.model, 128, 1024, share=True))
    return found


def paths(files: ParentFiles) -> list[Sequence[object]]:
    """A genetic algorithm with one local change a child; everybody scores the same candidates, in turn."""
    rooms = {"every layer": 0, "kept": 2 << 30, "kept, memory of two candidates": 2 * LAYERS * STATE}
    racing = contestants(files, rooms)
    rng = random.Random(1)
    population: list[tuple[float, Path_]] = []
    # As a search begins: around its parents.
    parents = [tuple((name, i) for i in range(LAYERS)) for name in ("one", "two")]
    children = [*parents, *(mutated(rng.choice(parents), rng) for _ in range(POPULATION - len(parents)))]
    for _ in range(GENERATIONS):
        recipes = {child: path_recipe(files, child) for child in dict.fromkeys(children)}
        scores: dict[str, dict[Path_, float]] = {name: {} for name in racing}
        for child in sorted(recipes, key=lambda child: hop_order(recipes[child])):
            for name, contestant in racing.items():
                scores[name][child] = contestant.score(recipes[child])
        whole = scores["every layer"]
        assert all(each == whole for each in scores.values()), "states that are gone on from change no number"
        population = sorted({*population, *((score, child) for child, score in whole.items())}, reverse=True)
        population = population[:POPULATION]
        children = [mutated(rng.choice(population)[1], rng) for _ in range(POPULATION)]
    whole_passes = racing["every layer"]
    return [contestant.row(name, whole_passes) for name, contestant in racing.items()]


def mutated(path: Path_, rng: random.Random) -> Path_:
    """One layer taken from the other parent, put in once more, left out, or moved by one."""
    place = rng.randrange(len(path))
    parent, layer = path[place]
    match rng.randrange(4):
        case 0:
            return (*path[: place + 1], *path[place:])
        case 1:
            return (*path[:place], *path[place + 1 :])
        case 2:
            return (*path[:place], *path[place : place + 2][::-1], *path[place + 2 :])
        case _:
            return (*path[:place], ("two" if parent == "one" else "one", layer), *path[place + 1 :])


def path_recipe(files: ParentFiles, path: Path_) -> Recipe:
    """A path between the base's embeddings and head."""
    layers = tuple(Layer(blend=Blend(sources=(Source(parent=name, layer=layer),))) for name, layer in path)
    return files.parents.recipe(layers, outer(files))


def outer(files: ParentFiles) -> dict[str, Blend]:
    """What is outside the layers, from the base."""
    return {group: Blend(sources=(Source(parent="base"),)) for group in files.parents.outer}


def late_layers(files: ParentFiles, candidates: int = 40) -> list[Sequence[object]]:
    """Weights drawn anew for every candidate, in the last quarter of the layers alone."""
    racing = contestants(files, {"every layer": 0, "kept": 1 << 30})
    rng = random.Random(2)
    late = LAYERS - LAYERS // 4
    for _ in range(candidates):
        weights = [(rng.random(), rng.random()) if layer >= late else (0.5, 0.5) for layer in range(LAYERS)]
        recipe = files.parents.recipe(tuple(_blended(layer, pair) for layer, pair in enumerate(weights)), outer(files))
        found = {contestant.score(recipe) for contestant in racing.values()}
        assert len(found) == 1, "states that are gone on from change no number"
    return [contestant.row(name, racing["every layer"]) for name, contestant in racing.items()]


def _blended(layer: int, weights: tuple[float, float]) -> Layer:
    base = Source(parent="base", layer=layer)
    pairs = zip(("one", "two"), weights, strict=True)
    sources = tuple(Source(parent=name, layer=layer, weight=weight) for name, weight in pairs)
    return Layer(blend=Blend(operator=TaskArithmetic(), base=base, sources=sources))


def measure_overhead(folder: Path, rounds: int = 150) -> float:
    """CPU time of a candidate of the demo where everything moves, against one scored by plain calls."""
    run = demo_run(folder, "demo-maths", "cma", 10, 1)
    rng = random.Random(3)
    ours, plain = (EvaluatorFactory(run.models, run.fitness, run.seed, "cpu").build() for _ in range(2))
    scorer: Any = plain.scorer
    scorer._responder.forward = None
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731  The machinery taken out.
    vars(plain.live.prefix)["begin"] = nothing
    space = bind(run.space, ours.live.files.parents)
    ratios = []
    for turn in range(rounds + 4):
        recipe = space.decode(tuple(rng.random() for _ in space.genes))
        spent = {}
        for evaluator in (ours, plain) if turn % 2 else (plain, ours):
            started = time.process_time()
            evaluator.marks(recipe, Draw(pool="search"))
            spent[evaluator] = time.process_time() - started
        ratios.append(spent[ours] / spent[plain])
    assert ours.live.prefix.reused == 0 and not len(ours.live.prefix.states), "there is nothing to be shared"
    return statistics.median(ratios[4:])
