"""Which layers of the model to leave out: a front of perplexity against depth."""

from pathlib import Path
from typing import Any

import yaml
from prose import compare, write_prose
from steps import conclude, make_base, search, step, whole

LAYERS = 30
FITNESS = """\
# How well a model foretells held-out prose, and how many layers it has.
include: [prose]
objectives:
  loss: {task: cot_prose, metric: loss}    # nats a token
  depth: {cost: layers}
items: {search: 40, confirm: 40, group: subject}    # two pieces of a subject: 20 subjects, and 20 others
estimator: {items: 10}                     # pieces for each candidate, others for every generation: 640 tokens
"""
RUN_FILE = """\
# SmolLM2-135M-Instruct without some of its layers.
models:
  experts:
    smollm: ../models/base
space: {kind: path, parents: anchor, repeats: 1, depth: [22, 30]}
fitness: fitness.yaml
start:                                 # what one would try first: the model without one of its layers
{start}optimizer: {kind: nsga2, population: 16}
budget: {evaluations: 93}              # the whole model, 28 without one layer, 4 generations
seed: 7
"""


def prune_story(out: Path) -> None:
    """Do what is not done yet, in the folder `prune` of `out`."""
    base, folder = out / "models/base", out / "prune"
    folder.mkdir(exist_ok=True)
    make_base(out)
    with step("a benchmark of prose, out of a Python package", folder / "prose") as missing:
        if missing:
            whole(folder / "prose", lambda path: write_prose(path, base))
    (folder / "fitness.yaml").write_text(FITNESS)
    search(folder, RUN_FILE.replace("{start}", "".join(f"  - {name}\n" for name in write_starts(folder))))
    conclude(folder)
    with step("its perplexity beside the whole model's, by stock transformers"):
        compare({"whole": base, "merged": folder / "merged"}, folder / "prose")


def write_starts(folder: Path) -> list[str]:
    """Recipes of the model without one layer; every path begins with its first and ends with its last."""
    (folder / "start").mkdir(exist_ok=True)
    names = [f"start/without-{layer}.yaml" for layer in range(1, LAYERS - 1)]
    for layer, name in enumerate(names, start=1):
        (folder / name).write_text(yaml.safe_dump(without(layer), sort_keys=False))
    return names


def without(left_out: int) -> dict[str, Any]:
    """The recipe of all layers but one."""
    outer = {name: {"sources": [{"parent": "smollm"}]} for name in ("embeddings", "norm")}
    layers = [{"sources": [{"parent": "smollm", "layer": layer}]} for layer in range(LAYERS) if layer != left_out]
    return {
        "format": 1,
        "parents": {"smollm": {"path": "../../models/base"}},
        "template": "smollm",
        "dtype": "bfloat16",
        "layers": [{"blend": blend} for blend in layers],
        "outer": outer,
    }
