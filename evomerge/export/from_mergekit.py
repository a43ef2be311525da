"""A mergekit configuration read as a recipe: filters, gradients and slices mean what they mean there."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, assert_never

from pydantic import ValidationError
from tokenizers import Tokenizer

from evomerge.checkpoint import ParentFiles, Place, read_config, renumbered
from evomerge.errors import SpecError
from evomerge.export.mergekit import Mergekit, Method, Slice, based, settings_of
from evomerge.export.passthrough import gain_of, scales_of
from evomerge.export.settings import Setting
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
from evomerge.spec import Models, parent_source, parse


def is_mergekit(plain: Mapping[str, Any]) -> bool:
    """Whether a YAML mapping is a mergekit configuration rather than a recipe of ours."""
    return "merge_method" in plain


def mergekit_models(found: Mergekit, where: Path) -> Models:
    """Which models a configuration merges; folders are relative to `where`, its own.

    Raises:
        SpecError: slices have several bases, or the tokenizer is to be another one's than the config.
    """
    base = _base(found)
    models = [source.model for part in found.laid_out(1) for source in part.sources]
    if base is not None and "+" in base:
        raise SpecError(
            f"base_model: {base} is a model and an adapter to mergekit; merge the adapter in, and name that"
        )
    names = expert_names([model for model in dict.fromkeys(models) if model != base])
    experts: dict[str, Any] = {name: _source(model, base, where) for name, model in names.items()}
    lender = base or models[0]
    if found.lender not in (None, "union", lender) and not (found.lender == "base" and base is not None):
        key = "tokenizer.source" if found.tokenizer is not None else "tokenizer_source"
        raise SpecError(
            f"{key}: {found.lender} is not the model that lends the config, {lender}; name that, or leave it out"
        )
    return Models(base=None if base is None else parent_source(base, where), experts=experts)


def _source(model: str, base: str | None, where: Path) -> str:
    """What a model is opened by: behind a + stands an adapter, which is to be one over the base.

    Raises:
        SpecError: it is over another model, or there is no base.
    """
    under, plus, adapter = model.partition("+")
    if plus and under != base:
        raise SpecError(
            f"{model}: the adapter is over another model than the base, {base}; merge it in, and name that folder"
        )
    return parent_source(adapter or under, where)


def _base(found: Mergekit) -> str | None:
    """The base of all slices; of slerp it is but one of two ends, and each slice may have its own."""
    bases = dict.fromkeys(found.base_of(part) for part in found.laid_out(1))
    if based(found.merge_method) != "task vectors":
        return found.base_model
    if len(bases) > 1:
        raise SpecError(f"slices have different bases, {' and '.join(map(str, bases))}; give all of them the same")
    return next(iter(bases))


def from_mergekit(found: Mergekit, where: Path, files: ParentFiles) -> Recipe:
    """The recipe that a configuration means, over its models opened as `files`.

    Raises:
        SpecError: a parameter is missing, a slice asks for layers that the models do not have, a component or outer
            group gets several values, passthrough scales something other than what layers add, or a tokenizer is asked
            for where embeddings have other rows than it has tokens.
    """
    if found.lender is not None:
        _check_rows(files)
    return _Reader(found, where, files).recipe()


def _check_rows(files: ParentFiles) -> None:
    """See that embeddings have a row for every token and no more: mergekit cuts off, or makes up, the others."""
    path = files.template.path / "tokenizer.json"
    rows = read_config(files.template).get_text_config().vocab_size
    tokens = len(Tokenizer.from_file(str(path)).get_vocab()) if path.is_file() else "an unknown number of"
    if rows != tokens:
        raise SpecError(
            f"tokenizer: with its source mergekit lays out the {rows} rows of the embeddings anew, for {tokens} tokens,"
            " which evomerge does not; leave it out"
        )


class _Reader:
    """One configuration, being read over its parents."""

    def __init__(self, found: Mergekit, where: Path, files: ParentFiles) -> None:
        self.found = found
        self.method = found.merge_method
        self.files = files
        self.passes = self.method == "passthrough"
        self.slices = found.laid_out(files.parents.layers)
        self.shared = settings_of(found.parameters, self.method, "all")
        by_path = {source: name for name, source in mergekit_models(found, where).experts.items()}
        models = {source.model for part in self.slices for source in part.sources}
        base = _base(found)
        self.names = {model: BASE if model == base else by_path[_source(model, base, where)] for model in models}

    def recipe(self) -> Recipe:
        layers: list[Layer] = []
        gains: list[float] = []
        for part in self.slices:
            length = self._length(part)
            for offset in range(length):
                # mergekit's position in a gradient: 1 for a slice of one layer, 0 outside the stack.
                at = self._at(part, len(layers), offset, offset / (length - 1) if length > 1 else 1.0)
                layers.append(self._layer(at))
                gains.append(self._gain(at))
        layers = [
            layer.model_copy(update={"scale": scale}) for layer, scale in zip(layers, scales_of(gains), strict=True)
        ]
        outer = {group: self._outer(group) for group in self.files.parents.outer}
        recipe = self.files.parents.recipe(tuple(layers), outer)
        dtype = self.found.out_dtype or self.found.dtype or recipe.dtype
        return parse(Recipe, {**recipe.to_plain(), "dtype": dtype}, "what it makes")

    def _at(self, part: Slice, layer: int | None, offset: int, depth: float) -> "_At":
        shared = [settings_of(part.parameters, self.method, "all"), self.shared]
        own = {source.model: [settings_of(source.parameters, self.method, "model"), *shared] for source in part.sources}
        return _At(part, layer, offset, depth, shared, own)

    def _length(self, part: Slice) -> int:
        depth = self.files.parents.layers
        for source in part.sources:
            first, end = source.layer_range
            if not first <= end <= depth:
                raise SpecError(f"layer_range {[first, end]} of {source.model}, which has {depth} layers")
        first, end = part.sources[0].layer_range
        return end - first

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
        (source,) = at.part.sources
        return _lookup("scale", at.own[source.model], self._disk(name), at.depth, 1.0)

    def _outer(self, group: str) -> Blend:
        at = self._at(self.slices[0] if group == "embeddings" else self.slices[-1], None, 0, 0.0)
        names = [n for n, p in self.files.anatomy.places.items() if p.layer is None and p.part == group]
        if self.passes and any(self._scale(at, name) != 1.0 for name in names):
            raise SpecError(f"{group}: scale is read where it multiplies what layers add, and not outside of them")
        return _only([self._blend(at, name) for name in names], group)

    def _disk(self, name: str, layer: int | None = None) -> str:
        """A tensor's name on disk, in another layer if one is given."""
        found = self.files.accounts[self.files.lender].written(name)
        return found if layer is None else renumbered(found, layer)

    def _blend(self, at: "_At", name: str) -> Blend:
        disk = self._disk(name, at.layer)
        values = {k: _lookup(k, at.shared, disk, at.depth, default) for k, default in _shared(self.method).items()}
        operator, first = _operator(self.method, values), self.found.base_of(at.part)
        sources, base = [], None
        # A pair goes from the base to the other one, wherever they stand.
        for source in sorted(at.part.sources, key=lambda each: operator.pair and each.model != first):
            layer = None if at.layer is None else source.layer_range[0] + at.offset
            parent = self.names[source.model]
            if source.model == first and operator.needs_base:
                base = Source(parent=parent, layer=layer)
            elif operator.pair or self.passes:
                sources.append(Source(parent=parent, layer=layer))
            else:
                own, there = at.own[source.model], self._disk(name, layer)
                weight = _lookup("weight", own, there, at.depth, None)
                density = _lookup("density", own, there, at.depth, 1.0) if operator.takes_density else 1.0
                sources.append(Source(parent=parent, layer=layer, weight=weight, density=_share(density, source.model)))
        try:
            return Blend(operator=operator, base=base, sources=tuple(sources))
        except ValidationError as error:
            raise SpecError(f"{disk}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _share(density: float, model: str) -> float:
    if density < 0:
        raise SpecError(f"density of {model} is {density:g}; give 0 to 1")
    return min(density, 1.0)


class _At(NamedTuple):
    """A place in the model to be made: in which slice, its layer (None outside), which layer of the slice."""

    part: Slice
    layer: int | None
    offset: int
    depth: float
    """In the slice, from 0 to 1: where gradients are read."""
    shared: Sequence[Mapping[str, Setting]]
    """Parameters, the slice's before those of the whole."""
    own: Mapping[str, Sequence[Mapping[str, Setting]]]
    """Parameters of each model, its own before the shared ones."""


def _origin(at: _At) -> int:
    """The layer of the first source that a layer is made of."""
    return at.part.sources[0].layer_range[0] + at.offset


def _shared(method: Method) -> dict[str, float | None]:
    """Parameters that are one for all models and matter, with mergekit's defaults (None: it must be set)."""
    match method:
        case "slerp":
            return {"t": None}
        case "passthrough":
            return {}
        case "linear":
            return {"normalize": 1.0}
        case "task_arithmetic":  # Which trims nothing that could be rescaled.
            return {"normalize": 0.0, "lambda": 1.0}
        case "ties":
            return {"normalize": 1.0, "lambda": 1.0, "rescale": 0.0}
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
            if values["rescale"]:
                raise SpecError("parameters.rescale: true is not read with ties, which keeps what it has; take it out")
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


def _lookup(
    key: str, levels: Sequence[Mapping[str, Setting]], tensor: str, depth: float, default: float | None
) -> float:
    """A parameter as mergekit finds it: the first level that sets it for this tensor."""
    for level in levels:
        if key in level:
            found = level[key].at(tensor, depth)
            if found is not None:
                return found
    if default is None:
        raise SpecError(f"parameter {key} is not set for {tensor}; set it")
    return default
