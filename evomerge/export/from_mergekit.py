"""A mergekit configuration read as a recipe: filters, gradients and slices mean what they mean there."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, assert_never, get_args

from evomerge.checkpoint import ParentFiles, Place, renumbered
from evomerge.errors import SpecError
from evomerge.export.passthrough import gain_of, scales_of
from evomerge.materialize import Last, lasts_of
from evomerge.recipe import (
    BASE,
    COMPONENTS,
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

Method: TypeAlias = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_ties", "passthrough"]
METHODS: tuple[Method, ...] = get_args(Method)


def is_mergekit(plain: Mapping[str, Any]) -> bool:
    """Whether a YAML mapping is a mergekit configuration rather than a recipe of ours."""
    return "merge_method" in plain


def mergekit_models(plain: Mapping[str, Any], where: Path) -> Models:
    """Which models a configuration merges; folders are relative to `where`, its own.

    Raises:
        SpecError: it uses a method or a form that evomerge has no recipe for.
    """
    _method(plain)
    if not isinstance(plain.get("models"), list) and not isinstance(plain.get("slices"), list):
        raise SpecError("neither models: nor slices: is there; `modules:` is not supported")
    sources = [source for part in _slices(plain, None) for source in part["sources"]]
    base = plain.get("base_model")
    models = dict.fromkeys(str(source["model"]) for source in sources)
    names = expert_names([model for model in models if model != base])
    found = {name: parent_source(model, where) for name, model in names.items()}
    return Models(base=None if base is None else parent_source(str(base), where), experts=dict(found))


def _method(plain: Mapping[str, Any]) -> Method:
    found = next((method for method in METHODS if method == plain["merge_method"]), None)
    if found is None:
        raise SpecError(f"merge_method {plain['merge_method']!r} is not one of {', '.join(METHODS)}")
    return found


def from_mergekit(plain: Mapping[str, Any], where: Path, files: ParentFiles) -> Recipe:
    """The recipe that a configuration means, over its models opened as `files`.

    Raises:
        SpecError: a parameter is missing, a slice asks for layers that the models do not have, a component or outer
            group gets several values, or passthrough scales something other than what layers add.
    """
    return _Reader(plain, where, files).recipe()


def _slices(plain: Mapping[str, Any], depth: int | None) -> list[dict[str, Any]]:
    if "slices" in plain:
        return list(plain["slices"])
    sources = [{"layer_range": [0, depth], **model} for model in plain["models"]]
    base = plain.get("base_model")
    if (
        plain["merge_method"] != "passthrough"
        and base is not None
        and base not in [source["model"] for source in sources]
    ):
        sources.append({"model": base, "layer_range": [0, depth]})
    return [{"sources": sources}]


class _Reader:
    """One configuration, being read over its parents."""

    def __init__(self, plain: Mapping[str, Any], where: Path, files: ParentFiles) -> None:
        self.plain = plain
        self.files = files
        self.method = _method(plain)
        self.passes = self.method == "passthrough"
        self.slices = _slices(plain, files.parents.layers)
        models = mergekit_models(plain, where)
        by_path = {source: name for name, source in models.experts.items() if isinstance(source, str)}
        self.names = {}
        for source in (source for part in self.slices for source in part["sources"]):
            model = str(source["model"])
            self.names[model] = BASE if model == plain.get("base_model") else by_path[parent_source(model, where)]

    def recipe(self) -> Recipe:
        layers: list[Layer] = []
        gains: list[float] = []
        for part in self.slices:
            length = self._length(part)
            for offset in range(length):
                # mergekit's position in a gradient: 1 for a slice of one layer, 0 outside the stack.
                at = _At(part, len(layers), offset, offset / (length - 1) if length > 1 else 1.0)
                layers.append(self._layer(at))
                gains.append(self._gain(at))
        layers = [
            layer.model_copy(update={"scale": scale}) for layer, scale in zip(layers, scales_of(gains), strict=True)
        ]
        outer = {group: self._outer(group) for group in self.files.parents.outer}
        recipe = self.files.parents.recipe(tuple(layers), outer)
        dtype = self.plain.get("out_dtype") or self.plain.get("dtype") or recipe.dtype
        return Recipe.model_validate({**recipe.model_dump(), "dtype": dtype}, strict=False)

    def _length(self, part: Mapping[str, Any]) -> int:
        depth = self.files.parents.layers
        if self.passes and len(part["sources"]) != 1:
            raise SpecError(f"a slice has {len(part['sources'])} sources, passthrough takes one")
        for source in part["sources"]:
            first, end = source["layer_range"]
            if not 0 <= first <= end <= depth:
                raise SpecError(f"layer_range {[first, end]} of {source['model']}, which has {depth} layers")
        lengths = {source["layer_range"][1] - source["layer_range"][0] for source in part["sources"]}
        if len(lengths) != 1:
            raise SpecError("the sources of a slice have layer ranges of different lengths")
        return int(lengths.pop())

    def _layer(self, at: "_At") -> Layer:
        parts: dict[Component, Blend] = {}
        for component in COMPONENTS:
            names = [name for name, place in self._names(at).items() if place.part == component]
            blends = [self._blend(at, name) for name in names]
            parts[component] = _only(blends, f"layer {at.layer}'s {component}") if blends else parts["attention"]
        whole = parts["attention"]
        mlp, norm = (None if parts[name] == whole else parts[name] for name in ("mlp", "norm"))
        return Layer(blend=whole, mlp=mlp, norm=norm)

    def _names(self, at: "_At") -> Mapping[str, Place]:
        """The tensors of a layer, by their names where they come from."""
        return self.files.anatomy.inside[_origin(at)]

    def _gain(self, at: "_At") -> float:
        scales = {place.name: self._scale(at, name) for name, place in self._names(at).items()} if self.passes else {}
        if not set(scales.values()) - {1.0}:
            return 1.0
        return gain_of(scales, self._lasts[_origin(at)], f"layer {at.layer}")

    @cached_property
    def _lasts(self) -> tuple[Mapping[str, Last], ...]:
        """What each layer of the models ends with; a model is built to find out."""
        return lasts_of(self.files)

    def _scale(self, at: "_At", name: str) -> float:
        (source,) = at.part["sources"]
        levels = [source.get("parameters") or {}, at.part.get("parameters") or {}, self.plain.get("parameters") or {}]
        return _lookup("scale", levels, self._disk(name), at.depth, 1.0)

    def _outer(self, group: str) -> Blend:
        at = _At(self.slices[0] if group == "embeddings" else self.slices[-1], None, 0, 0.0)
        names = [n for n, p in self.files.anatomy.places.items() if p.layer is None and p.part == group]
        if self.passes and any(self._scale(at, name) != 1.0 for name in names):
            raise SpecError(f"{group}: scale is read where it multiplies what layers add, and not outside of them")
        return _only([self._blend(at, name) for name in names], group)

    def _disk(self, name: str, layer: int | None = None) -> str:
        """A tensor's name on disk, in another layer if one is given."""
        found = self.files.accounts[self.files.lender].written(name)
        return found if layer is None else renumbered(found, layer)

    def _blend(self, at: "_At", name: str) -> Blend:
        shared = [at.part.get("parameters") or {}, self.plain.get("parameters") or {}]

        def setting(key: str, default: float | None) -> float:
            return _lookup(key, shared, self._disk(name, at.layer), at.depth, default)

        operator = _operator(self.method, {key: setting(key, value) for key, value in _shared(self.method).items()})
        sources, base = [], None
        for source in at.part["sources"]:
            layer = None if at.layer is None else source["layer_range"][0] + at.offset
            parent = self.names[str(source["model"])]
            if parent == BASE and operator.needs_base:
                base = Source(parent=parent, layer=layer)
            elif operator.pair or self.passes:
                sources.append(Source(parent=parent, layer=layer))
            else:
                levels = [source.get("parameters") or {}, *shared]
                own = self._disk(name, layer)
                weight = _lookup("weight", levels, own, at.depth, None)
                density = _lookup("density", levels, own, at.depth, 1.0)
                sources.append(Source(parent=parent, layer=layer, weight=weight, density=min(density, 1.0)))
        if operator.pair:
            sources.sort(key=lambda source: source.parent != BASE)
        return Blend(operator=operator, base=base, sources=tuple(sources))


class _At(NamedTuple):
    """A place in the model to be made: in which slice, its layer (None outside), which layer of the slice."""

    part: Mapping[str, Any]
    layer: int | None
    offset: int
    depth: float
    """In the slice, from 0 to 1: where gradients are read."""


def _origin(at: _At) -> int:
    """The layer of the first source that a layer is made of."""
    return int(at.part["sources"][0]["layer_range"][0]) + at.offset


def _shared(method: Method) -> dict[str, float | None]:
    """Parameters that are one for all models, with mergekit's defaults (None: it must be set)."""
    match method:
        case "slerp":
            return {"t": None}
        case "passthrough":
            return {}
        case "linear":
            return {"normalize": 1.0}
        case "task_arithmetic":
            return {"normalize": 0.0, "lambda": 1.0}
        case "ties":
            return {"normalize": 1.0, "lambda": 1.0}
        case "dare_ties":
            return {"normalize": 0.0, "lambda": 1.0, "rescale": 1.0}
        case _:
            assert_never(method)


def _operator(method: Method, values: Mapping[str, float]) -> Operator:
    match method:
        case "slerp":
            return Slerp(t=values["t"])
        case "linear":
            return Linear(normalize=bool(values["normalize"]))
        case "passthrough":
            return Linear()
        case "task_arithmetic":
            return TaskArithmetic(normalize=bool(values["normalize"]), scale=values["lambda"])
        case "ties":
            return Ties(normalize=bool(values["normalize"]), scale=values["lambda"])
        case "dare_ties":
            rule: Literal["l1", "none"] = "l1" if values["rescale"] else "none"
            return DareTies(normalize=bool(values["normalize"]), scale=values["lambda"], rescale=rule)
        case _:
            assert_never(method)


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
