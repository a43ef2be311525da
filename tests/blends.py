"""Families opened as parents, and recipes over them by every operator."""

from pathlib import Path

import torch
from families import make_family

from evomerge.checkpoint import ParentFiles, open_parents
from evomerge.recipe import Blend, Layer, Recipe, Source
from evomerge.space import unchanged

CPU = torch.device("cpu")
OPERATORS = {
    "linear": {"kind": "linear"},
    "linear, not normalised": {"kind": "linear", "normalize": False},
    "slerp": {"kind": "slerp", "t": 0.3},
    "task_arithmetic": {"kind": "task_arithmetic", "lambda": 1.3},
    "task_arithmetic, normalised": {"kind": "task_arithmetic", "normalize": True},
    "ties": {"kind": "ties", "lambda": 0.8},
    "ties, not normalised": {"kind": "ties", "normalize": False},
    "dare_ties": {"kind": "dare_ties"},
    "dare_ties, normalised": {"kind": "dare_ties", "normalize": True, "rescale": "l1"},
}
NAMES = ("one", "two")


def opened(family: str, folder: Path, **changes: object) -> ParentFiles:
    paths = make_family(family, folder, **changes)  # type: ignore[arg-type]
    return open_parents(str(paths["base"]), {name: str(paths[name]) for name in NAMES}, 0)


def blend(kind: str, layer: int | None, weights: tuple[float, ...] = (0.7, 0.4)) -> Blend:
    operator = OPERATORS[kind]
    density = 0.6 if operator["kind"] in ("ties", "dare_ties") else 1.0
    pair = operator["kind"] == "slerp"
    sources = tuple(
        Source(parent=name, layer=layer, weight=1.0 if pair else weight, density=density)
        for name, weight in zip(NAMES, weights, strict=True)
    )
    needs_base = operator["kind"] not in ("linear", "slerp")
    plain = {"operator": operator, "base": {"parent": "base", "layer": layer} if needs_base else None}
    return Blend.model_validate({**plain, "sources": sources})


def recipe_of(files: ParentFiles, kind: str, origins: tuple[int, ...] = (0, 1, 2)) -> Recipe:
    layers = tuple(Layer(blend=blend(kind, origin, (0.7 - 0.1 * origin, 0.4))) for origin in origins)
    outer = {part: blend(kind, None) for part in files.anatomy.outer}
    return unchanged(files.parents, "base").model_copy(update={"layers": layers, "outer": outer})
