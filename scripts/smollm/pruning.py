"""Which layers of the model to leave out: a front of perplexity against depth."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prose import compare, write_prose
from steps import conclude, evomerge, make_base, search, step, whole

from evomerge import load

LAYERS, SHALLOWEST = 30, 22
SEEDS = 11
"""Of the models without one layer, the best that the search begins with."""
FINALISTS = 24
RUN_FILE = """\
# {title}
models:
  experts:
    smollm: {base}
space: {{kind: path, parents: anchor, repeats: 1, depth: [{shallowest}, {layers}]}}
fitness:
  include: [{prose}]
  objectives:
    loss: {{task: cot_prose, metric: loss}}      # nats a token; its exponential is the perplexity
    depth: {{cost: layers}}
  items: {{search: 40, confirm: {confirm}, group: subject}}    # two pieces of 64 tokens of every subject
  estimator: {{items: {items}}}
start:{start}
optimizer: {{kind: nsga2, population: 16}}
budget: {{evaluations: {evaluations}}}
seed: 7
"""
ALONE = "SmolLM2-135M-Instruct without one of its layers: 28 recipes, and nothing else."
TOGETHER = "SmolLM2-135M-Instruct without some of its layers, from those on that are cheapest one by one."


@dataclass(frozen=True)
class Search:
    """What the two searches differ in; `start` has the layers to leave out of each recipe to begin with."""

    title: str
    start: Sequence[Collection[int]]
    confirm: int
    items: int
    evaluations: int


def prune_story(out: Path) -> None:
    """Do what is not done yet, in the folder `prune` of `out`."""
    base, folder = out / "models/base", out / "prune"
    single = folder / "single"
    single.mkdir(parents=True, exist_ok=True)
    make_base(out)
    with step("a benchmark of prose, out of a Python package", folder / "prose") as missing:
        if missing:
            whole(folder / "prose", lambda path: write_prose(path, base))
    ones = [{layer} for layer in range(1, LAYERS - 1)]  # Every path begins with the first layer, ends with the last.
    search(single, run_file(Search(ALONE, ones, confirm=2, items=20, evaluations=1 + len(ones)), single, base))
    search(
        folder, run_file(Search(TOGETHER, first_guesses(single), confirm=40, items=10, evaluations=132), folder, base)
    )
    confirm_more(folder)
    conclude(folder, "knee")
    with step("its perplexity beside the whole model's, by stock transformers"):
        compare({"whole": base, "merged": folder / "merged"}, folder / "prose")


def confirm_more(folder: Path) -> None:
    """Confirm those, too, that the luckiest of their depth left behind in the search: ten pieces tell little apart."""
    shown = folder / "confirmed.txt"
    with step("more finalists on held-out items", shown) as missing:
        if missing:
            text = evomerge("confirm", folder / "run", "--top", str(FINALISTS), capture=True)
            print(text, end="")
            shown.write_text(text)


def first_guesses(single: Path) -> list[set[int]]:
    """Layers to leave out, cheapest first: one of them, then two and more together."""
    costs = losses_without(single / "run")
    most = LAYERS - SHALLOWEST
    cheapest = sorted(costs, key=lambda layer: costs[layer])
    return [{layer} for layer in cheapest[:SEEDS]] + [set(cheapest[:count]) for count in range(2, most + 1)]


def losses_without(run: Path) -> Mapping[int, float]:
    """What the run of single layers found: the loss of the model without each."""
    results = load(run)
    found = {}
    for number, row in results.rows.items():
        kept = {layer.blend.sources[0].layer for layer in results.recipe(number).layers}
        left_out = set(range(LAYERS)) - kept
        if left_out and row.search is not None:
            found[left_out.pop()] = row.search["loss"][0]
    return found


def run_file(search: Search, folder: Path, base: Path) -> str:
    """The text of a run file in `folder`, with its `start` as recipes beside it."""
    return RUN_FILE.format(
        title=search.title,
        base=os.path.relpath(base, folder),
        prose=os.path.relpath(base.parents[1] / "prune/prose", folder),
        shallowest=SHALLOWEST,
        layers=LAYERS,
        confirm=search.confirm,
        items=search.items,
        evaluations=search.evaluations,
        start="".join(f"\n  - {write_recipe(folder, base, left_out)}" for left_out in search.start),
    )


def write_recipe(folder: Path, base: Path, left_out: Collection[int]) -> str:
    """A recipe of the model without some layers; returns its place in the folder."""
    name = f"start/without-{'-'.join(map(str, sorted(left_out)))}.yaml"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(recipe(os.path.relpath(base, path.parent), left_out), sort_keys=False))
    return name


def recipe(base: str, left_out: Collection[int]) -> dict[str, Any]:
    """The recipe of all layers but some, as one would write it."""
    kept = [layer for layer in range(LAYERS) if layer not in left_out]
    return {
        "format": 1,
        "parents": {"smollm": {"path": base}},
        "template": "smollm",
        "dtype": "bfloat16",
        "layers": [{"blend": {"sources": [{"parent": "smollm", "layer": layer}]}} for layer in kept],
        "outer": {group: {"sources": [{"parent": "smollm"}]} for group in ("embeddings", "norm")},
    }
