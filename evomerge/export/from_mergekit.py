"""A mergekit configuration read as a recipe: filters, gradients and slices mean what they mean there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evomerge.checkpoint import ParentFiles
from evomerge.errors import SpecError
from evomerge.recipe import (
    BASE,
    COMPONENTS,
    NEEDS_BASE,
    Blend,
    Component,
    DareTies,
    Layer,
    Linear,
    Operator,
    Recipe,
    Slerp,
    Source,
    TaskArithmetic,
    Ties,
    expert_names,
)
from evomerge.spec import Models, parent_source

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties")
DEFAULT_NORMALIZE = {"linear": 1.0, "ties": 1.0, "task_arithmetic": 0.0, "dare_ties": 0.0}


def is_mergekit(plain: Mapping[str, Any]) -> bool:
    """Whether a YAML mapping is a mergekit configuration rather than a recipe of ours."""
    return "merge_method" in plain


def mergekit_models(plain: Mapping[str, Any], where: Path) -> Models:
    """Which models a configuration merges; folders are relative to `where`, its own.

    Raises:
        SpecError: it uses a method or a form that evomerge has no recipe for.
    """
    if plain["merge_method"] not in METHODS:
        raise SpecError(f"merge_method {plain['merge_method']!r} is not one of {', '.join(METHODS)}")
    if not isinstance(plain.get("models"), list) and not isinstance(plain.get("slices"), list):
        raise SpecError("neither models: nor slices: is there; `modules:` is not supported")
    sources = [source for part in _slices(plain, None) for source in part["sources"]]
    base = plain.get("base_model")
    models = dict.fromkeys(str(source["model"]) for source in sources)
    names = expert_names([model for model in models if model != base])
    found = {name: parent_source(model, where) for name, model in names.items()}
    return Models(base=None if base is None else parent_source(str(base), where), experts=dict(found))


def from_mergekit(plain: Mapping[str, Any], where: Path, files: ParentFiles) -> Recipe:
    """The recipe that a configuration means, over its models opened as `files`.

    Raises:
        SpecError: a parameter is missing, the slices do not make a model of the parents' depth, or a component or
            outer group gets several values.
    """
    return _Reader(plain, where, files).recipe()


def _slices(plain: Mapping[str, Any], depth: int | None) -> list[dict[str, Any]]:
    if "slices" in plain:
        return list(plain["slices"])
    sources = [{"layer_range": [0, depth], **model} for model in plain["models"]]
    base = plain.get("base_model")
    if base is not None and base not in [source["model"] for source in sources]:
        sources.append({"model": base, "layer_range": [0, depth]})
    return [{"sources": sources}]


class _Reader:
    """One configuration, being read over its parents."""

    def __init__(self, plain: Mapping[str, Any], where: Path, files: ParentFiles) -> None:
        self.plain = plain
        self.files = files
        self.slices = _slices(plain, files.parents.layers)
        models = mergekit_models(plain, where)
        by_path = {source: name for name, source in models.experts.items() if isinstance(source, str)}
        self.names = {}
        for source in (source for part in self.slices for source in part["sources"]):
            model = str(source["model"])
            self.names[model] = BASE if model == plain.get("base_model") else by_path[parent_source(model, where)]

    def recipe(self) -> Recipe:
        layers: list[Layer] = []
        for part in self.slices:
            length = self._length(part)
            for offset in range(length):
                # mergekit's position in a gradient: 1 for a slice of one layer, 0 outside the stack.
                depth = offset / (length - 1) if length > 1 else 1.0
                layers.append(self._layer(part, offset, depth, len(layers)))
        if len(layers) != self.files.parents.layers:
            raise SpecError(f"the slices make {len(layers)} layers, the models have {self.files.parents.layers}")
        outer = {group: self._outer(group) for group in self.files.parents.outer}
        recipe = self.files.parents.recipe(tuple(layers), outer)
        dtype = self.plain.get("out_dtype") or self.plain.get("dtype") or recipe.dtype
        return Recipe.model_validate({**recipe.model_dump(), "dtype": dtype}, strict=False)

    def _length(self, part: Mapping[str, Any]) -> int:
        lengths = {source["layer_range"][1] - source["layer_range"][0] for source in part["sources"]}
        if len(lengths) != 1:
            raise SpecError("the sources of a slice have layer ranges of different lengths")
        return int(lengths.pop())

    def _layer(self, part: Mapping[str, Any], offset: int, depth: float, index: int) -> Layer:
        parts: dict[Component, Blend] = {}
        for component in COMPONENTS:
            names = [n for n, p in self.files.anatomy.places.items() if p.layer == index and p.part == component]
            blends = [self._blend(part, name, depth, offset) for name in names]
            parts[component] = _only(blends, f"layer {index}'s {component}") if blends else parts["attention"]
        whole = parts["attention"]
        mlp, norm = (None if parts[name] == whole else parts[name] for name in ("mlp", "norm"))
        return Layer(blend=whole, mlp=mlp, norm=norm)

    def _outer(self, group: str) -> Blend:
        part = self.slices[0] if group == "embeddings" else self.slices[-1]
        names = [n for n, p in self.files.anatomy.places.items() if p.layer is None and p.part == group]
        return _only([self._blend(part, name, 0.0, None) for name in names], group)

    def _blend(self, part: Mapping[str, Any], name: str, depth: float, offset: int | None) -> Blend:
        disk = self.files.disk[self.files.parents.template][name]
        shared = [part.get("parameters") or {}, self.plain.get("parameters") or {}]

        def setting(key: str, levels: Sequence[Mapping[str, Any]], default: float | None) -> float:
            return _lookup(key, levels, disk, depth, default)

        method = str(self.plain["merge_method"])
        operator = _operator(method, {key: setting(key, shared, value) for key, value in _shared(method).items()})
        sources = []
        base = None
        for source in part["sources"]:
            layer = None if offset is None else source["layer_range"][0] + offset
            parent = self.names[str(source["model"])]
            levels = [source.get("parameters") or {}, *shared]
            if parent == BASE and method in NEEDS_BASE:
                base = Source(parent=parent, layer=layer)
            elif method == "slerp":
                sources.append(Source(parent=parent, layer=layer))
            else:
                weight, density = setting("weight", levels, None), setting("density", levels, 1.0)
                sources.append(Source(parent=parent, layer=layer, weight=weight, density=min(density, 1.0)))
        if method == "slerp":
            sources.sort(key=lambda source: source.parent != BASE)
        return Blend(operator=operator, base=base, sources=tuple(sources))


def _shared(method: str) -> dict[str, float | None]:
    """Parameters that are one for all models, with mergekit's defaults (None: it must be set)."""
    if method == "slerp":
        return {"t": None}
    common: dict[str, float | None] = {"normalize": DEFAULT_NORMALIZE[method]}
    if method != "linear":
        common["lambda"] = 1.0
    if method == "dare_ties":
        common["rescale"] = 1.0
    return common


def _operator(method: str, values: Mapping[str, float]) -> Operator:
    match method:
        case "slerp":
            return Slerp(t=values["t"])
        case "linear":
            return Linear(normalize=bool(values["normalize"]))
        case "task_arithmetic":
            return TaskArithmetic(normalize=bool(values["normalize"]), scale=values["lambda"])
        case "ties":
            return Ties(normalize=bool(values["normalize"]), scale=values["lambda"])
        case _:
            rule: Literal["l1", "none"] = "l1" if values["rescale"] else "none"
            return DareTies(normalize=bool(values["normalize"]), scale=values["lambda"], rescale=rule)


def _only(blends: Sequence[Blend], what: str) -> Blend:
    if any(blend != blends[0] for blend in blends[1:]):
        raise SpecError(
            f"{what} gets several values by filters; evomerge has one per attention, MLP, norms and outer group"
        )
    return blends[0]


def _lookup(key: str, levels: Sequence[Mapping[str, Any]], tensor: str, depth: float, default: float | None) -> float:
    """A parameter as mergekit finds it: the first level that sets it for this tensor."""
    for level in levels:
        if key in level:
            found = _resolved(level[key], tensor, depth)
            if found is not None:
                return found
    if default is None:
        raise SpecError(f"parameter {key} is not set for {tensor}; set it")
    return default


def _resolved(setting: Any, tensor: str, depth: float) -> float | None:
    """The number a setting has for a tensor: itself, a gradient's value at `depth`, or its first fitting filter's."""
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list):
        return float(setting)
    if setting and not isinstance(setting[0], Mapping):
        position = depth * (len(setting) - 1)
        low = int(position)
        high = min(low + 1, len(setting) - 1)
        return float(setting[low] + (position - low) * (setting[high] - setting[low]))
    for entry in setting:
        wanted = entry.get("filter")
        if wanted is None or wanted == "*" or wanted in tensor:
            return _resolved(entry["value"], tensor, depth)
    return None
