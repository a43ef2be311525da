"""A recipe in mergekit's words: one slice per run of equal layers, filters for components and outer tensors."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, TypeAlias, assert_never

from evomerge.checkpoint import Anatomy, ParentFiles, read_config
from evomerge.errors import SpecError
from evomerge.export.passthrough import copied, passthrough_slices
from evomerge.recipe import COMPONENTS, Blend, DareTies, Folder, Linear, Operator, Recipe, Slerp, TaskArithmetic, Ties
from evomerge.space import span_of, weights_of

Shares: TypeAlias = dict[str, tuple[float, float]]
"""Weight and density of each model; for slerp the weight of the second model is t."""


def to_mergekit(recipe: Recipe, files: ParentFiles) -> dict[str, Any]:
    """A mergekit configuration that merges the same model (DARE's random masks aside).

    Raises:
        SpecError: mergekit has no words for it.
    """
    if recipe.tensors or recipe.arrays is not None:
        grain = "tensor" if recipe.arrays is None else recipe.arrays.grain
        raise SpecError(
            f"the recipe has weights by {grain}, and mergekit's are by layer and part of a name; export the model"
            " itself, which is exact"
        )
    scaled = any(gain != 1.0 for gain in recipe.gains())
    steps = [copied(layer) for layer in recipe.layers]
    moved = any(step is None or step.layer != place for place, step in enumerate(steps))
    if scaled or (moved and None not in steps and _fits_passthrough(recipe, files)):
        return _passthrough(recipe, files)
    return _Writer(recipe, files.anatomy).configuration()


def caveats(recipe: Recipe, files: ParentFiles) -> list[str]:
    """What mergekit will do otherwise with this recipe, in sentences."""
    found = [text for text in dict.fromkeys(map(_caveat, recipe.blends())) if text is not None]
    types = getattr(read_config(files.template).get_text_config(), "layer_types", None)
    if types is not None and [types[origin] for origin in recipe.origins()] != types:
        found.append(
            "mergekit leaves layer_types in config.json as it is (and may stop when saving another number of layers,"
            " the weights being written); put the config.json of the model that evomerge exports into its folder"
        )
    return found


def _caveat(blend: Blend) -> str | None:
    """What mergekit does otherwise with one blend."""
    match blend.operator:
        case Linear() | Slerp() | TaskArithmetic():
            return None
        case Ties():
            if not any(0 < source.density < 1 for source in blend.sources):
                return None
            return (
                "where changes of equal size meet at the trimming threshold of ties, mergekit keeps some of them and"
                " evomerge all, so a few weights will differ"
            )
        case DareTies(rescale=rescale):
            rule = "" if rescale == "l1" else " and rescales by L1 norm instead of 1/density"
            return f"mergekit draws other random masks for dare_ties{rule}, so its model will differ from this one"
        case _:
            assert_never(blend.operator)


def _fits_passthrough(recipe: Recipe, files: ParentFiles) -> bool:
    try:
        passthrough_slices(recipe, files)
    except SpecError:
        return False
    return True


def _passthrough(recipe: Recipe, files: ParentFiles) -> dict[str, Any]:
    slices = passthrough_slices(recipe, files)
    for part in slices:
        for source in part["sources"]:
            source["model"] = _model(recipe, source["model"])
    # Its config and tokenizer are the base model's; left out, those of any.
    lender = _model(recipe, recipe.template)
    head = {"merge_method": "passthrough", "base_model": lender, "slices": slices}
    return {**head, "dtype": "float32", "out_dtype": recipe.dtype}


class _Writer:
    """One recipe, being put into mergekit's words."""

    def __init__(self, recipe: Recipe, anatomy: Anatomy) -> None:
        self.recipe = recipe
        self.anatomy = anatomy
        self.operator = _main_operator(recipe)
        self.base = next((blend.base.parent for blend in recipe.blends() if blend.base is not None), None)
        self.voices = self._voices()
        self.models = tuple(dict.fromkeys([*([self.base] if self.base else []), *self.voices]))

    def configuration(self) -> dict[str, Any]:
        depth = len(self.recipe.layers)
        layers = [self._layer(index) for index in range(depth)]
        origins = [self._origins(index) for index in range(depth)]
        slices = []
        # Layers in a row of the same shares, of layers that follow one another in every model.
        steps = [{name: origin - index for name, origin in origins[index].items()} for index in range(depth)]
        for _, run in groupby(range(depth), key=lambda index: repr((layers[index], steps[index]))):
            indices = list(run)
            slices.append(self._slice(range(indices[0], indices[-1] + 1), layers[indices[0]], origins[indices[0]]))
        plain: dict[str, Any] = {"merge_method": self.operator.kind, "slices": slices}
        base = self.voices[0] if self.operator.pair else self.base
        if base is not None:
            plain["base_model"] = _model(self.recipe, base)
        if constants := self._constants():
            plain["parameters"] = constants
        # mergekit computes TIES and DARE in the dtype of the tensors unless told otherwise.
        return {**plain, "dtype": "float32", "out_dtype": self.recipe.dtype}

    def _voices(self) -> tuple[str, ...]:
        """The models that have a weight, in the order of the recipe's parents; slerp's pair in its own."""
        if self.operator.pair:
            pairs = {tuple(s.parent for s in b.sources) for b in self.recipe.blends() if b.operator.pair}
            if len(pairs) > 1:
                raise SpecError(
                    f"the recipe has several pairs of models under {self.operator.kind}, a mergekit configuration has"
                    " one"
                )
            return pairs.pop()
        silent = {self.base} if self.operator.needs_base else set()
        return tuple(name for name in self.recipe.parents if name in self.recipe.used() - silent)

    def _layer(self, index: int) -> dict[str, Shares]:
        layer = self.recipe.layers[index]
        return {part: self._shares(layer.part(part)) for part in COMPONENTS}

    def _origins(self, index: int) -> dict[str, int]:
        """Which layer of each model one layer reads; a model that it does not read is given as the others are."""
        own: dict[str, set[int]] = {}
        for part in COMPONENTS:
            blend = self.recipe.layers[index].part(part)
            names = [source.parent for source in blend.everything()]
            if len(names) > len(set(names)):
                raise SpecError(f"layer {index} takes one model more than once, in a mergekit slice it stands once")
            for source in blend.everything():
                own.setdefault(source.parent, set()).add(source.layer or 0)
        split = next((name for name, layers in own.items() if len(layers) > 1), None)
        if split is not None:
            raise SpecError(
                f"layer {index} takes several layers of {split}, a mergekit slice has one range of each model"
            )
        silent = self.recipe.origins()[index]
        return {name: own[name].copy().pop() if name in own else silent for name in self.models}

    def _shares(self, blend: Blend) -> Shares:
        if self.operator.pair:
            return self._slerp_shares(blend)
        if blend.operator == self.operator:
            own = {source.parent: (source.weight, source.density) for source in blend.sources}
            return {name: own.get(name, (0.0, 1.0)) for name in self.voices}
        weights = weights_of(span_of(blend), self.operator, self.voices, self.base)
        return {name: (weight, 1.0) for name, weight in zip(self.voices, weights, strict=True)}

    def _slerp_shares(self, blend: Blend) -> Shares:
        if isinstance(blend.operator, Slerp):
            t = blend.operator.t
        else:
            span = span_of(blend)
            if list(span) not in ([self.voices[0]], [self.voices[1]]):
                raise SpecError("the recipe is not a slerp of two models throughout")
            t = 0.0 if self.voices[0] in span else 1.0
        return {self.voices[0]: (0.0, 1.0), self.voices[1]: (t, 1.0)}

    def _slice(self, run: range, layer: Mapping[str, Shares], origins: Mapping[str, int]) -> dict[str, Any]:
        outer = self._outer(run.start == 0, run.stop == len(self.recipe.layers))
        sources: list[dict[str, Any]] = [
            {"model": _model(self.recipe, name), "layer_range": [origins[name], origins[name] + len(run)]}
            for name in self.models
        ]
        if self.operator.pair:
            return {"sources": sources, "parameters": {"t": self._setting(layer, outer, self.voices[1], 0)}}
        for model, source in zip(self.models, sources, strict=True):
            if model in self.voices:
                source["parameters"] = {"weight": self._setting(layer, outer, model, 0)}
                if self.operator.takes_density:
                    source["parameters"]["density"] = self._setting(layer, outer, model, 1)
        return {"sources": sources}

    def _outer(self, at_start: bool, at_end: bool) -> dict[str, Shares]:
        """What happens to tensors before the stack, which the first slice sets, and behind it, which the last does."""
        return {
            name: self._shares(self.recipe.outer[place.part])
            for name, place in self.anatomy.places.items()
            if place.layer is None and (at_start if place.part == "embeddings" else at_end)
        }

    def _setting(self, layer: Mapping[str, Shares], outer: Mapping[str, Shares], model: str, which: int) -> Any:
        """One number, or filters by tensor name where components or outer tensors have numbers of their own."""
        inner = {component: shares[model][which] for component, shares in layer.items()}
        default = inner["attention"]
        by_filter = {
            name.rpartition(".")[0]: shares[model][which]
            for name, shares in outer.items()
            if shares[model][which] != default
        }
        for place in self.anatomy.places.values():
            if place.layer == 0 and inner[place.part] != default:
                by_filter[f".{place.name.rpartition('.')[0]}."] = inner[place.part]
        if not by_filter:
            return default
        return [*({"filter": text, "value": value} for text, value in by_filter.items()), {"value": default}]

    def _constants(self) -> dict[str, Any]:
        match operator := self.operator:
            case Slerp():
                return {}
            case Linear():
                return {"normalize": operator.normalize}
            case TaskArithmetic() | Ties():
                return {"normalize": operator.normalize, "lambda": operator.scale}
            case DareTies():
                rescale = operator.rescale != "none"
                return {"normalize": operator.normalize, "lambda": operator.scale, "rescale": rescale}
            case _:
                assert_never(operator)


def _model(recipe: Recipe, name: str) -> str:
    parent = recipe.parents[name]
    if isinstance(parent, Recipe):
        raise SpecError(f"{name} is a merge itself, and a mergekit configuration is over model folders")
    return _folder(parent) if parent.base is None else f"{_folder(parent.base)}+{_folder(parent)}"


def _folder(parent: Folder) -> str:
    if parent.hub is None and ("+" in parent.path or "@" in parent.path):
        raise SpecError(
            f"{parent.path} has a + or @ in it, which mergekit takes for more than a path; link it elsewhere"
        )
    return parent.hub or parent.path


def _main_operator(recipe: Recipe) -> Operator:
    """The one operator of the recipe; copies and sums of parents fit into any of them."""
    kinds: list[Operator] = []
    for operator in (blend.operator for blend in recipe.blends()):
        # The constant of a pair is a place's own, as weights are.
        known = any(operator.kind == other.kind if operator.pair else operator == other for other in kinds)
        if not isinstance(operator, Linear) and not known:
            kinds.append(operator)
    if len(kinds) > 1:
        names = ", ".join(operator.kind for operator in kinds)
        raise SpecError(f"the recipe has several operators ({names}), a mergekit configuration has one")
    return kinds[0] if kinds else Linear(normalize=False)
