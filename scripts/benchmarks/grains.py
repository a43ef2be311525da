"""What weights by tensor, column and row cost where a candidate is made: beside one number a source for the model."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import table
from prefix import make_parents

from evomerge.checkpoint import ParentFiles, Shares
from evomerge.materialize import LiveModel
from evomerge.recipe import Coefficients, Grain, Recipe
from evomerge.space import BlendSpec, bind

ROUNDS = 7
GRAINS: tuple[Grain, ...] = ("tensor", "column", "row")
OPERATORS = {"linear": {}, "task_arithmetic": {}, "ties": {"density": 0.5}, "dare_ties": {"density": 0.5}}


def bench_grains() -> None:
    """Medians of loading a candidate in which every tensor is new, grains in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        files = make_parents(Path(temporary))
        live = LiveModel(files, torch.device("cpu"), compiled=False, reuse=0)
        rows = [_row(operator, live, files) for operator in OPERATORS]
    head = ("", "a model, ms", *(f"{grain}, times that" for grain in GRAINS))
    table(f"weights of {files.anatomy.parameters:,} parameters by grain, CPU", [head, *rows])


def _row(operator: str, live: LiveModel, files: ParentFiles) -> Sequence[object]:
    spec = BlendSpec.model_validate({"operator": {"kind": operator}, "groups": "model", **OPERATORS[operator]})
    space = bind(spec, files.parents)
    seconds: dict[str, list[float]] = {name: [] for name in ("model", *GRAINS)}
    for turn in range(ROUNDS):
        plain = space.decode(tuple(0.3 + 0.02 * turn + 0.1 * place for place in range(len(space.genes))))
        seconds["model"].append(_load(live, plain, None))
        for grain in GRAINS:
            fine = _moved(plain, files, grain, turn)
            seconds[grain].append(_load(live, plain.refined(fine), None if grain == "tensor" else fine))
    model = statistics.median(seconds["model"])
    return operator, 1000 * model, *(statistics.median(seconds[grain]) / model for grain in GRAINS)


def _moved(recipe: Recipe, files: ParentFiles, grain: Grain, seed: int) -> Coefficients:
    """The recipe's weights in a grain, each a little off."""
    rng = np.random.default_rng(seed)
    start = Shares(recipe, files.anatomy).coefficients(None if grain == "tensor" else grain)
    arrays = {name: array + 0.01 * rng.standard_normal(array.shape) for name, array in start.arrays.items()}
    return Coefficients(grain, {name: array.astype(np.float32) for name, array in arrays.items()})


def _load(live: LiveModel, recipe: Recipe, coefficients: Coefficients | None) -> float:
    started = time.process_time()
    live.load(recipe, coefficients)
    return time.process_time() - started
