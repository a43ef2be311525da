"""A mergekit configuration as a value: every key is read, or refused by name."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self, TypeAlias, assert_never, get_args

from pydantic import BeforeValidator, Field, model_validator

from evomerge.errors import SpecError
from evomerge.export.settings import Setting, setting_of
from evomerge.limits import HOPS
from evomerge.spec import parse
from evomerge.values import Value

Method: TypeAlias = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_ties", "passthrough"]
METHODS: tuple[Method, ...] = get_args(Method)
OTHER_METHODS = frozenset({
    "arcee_fusion", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "della", "della_linear", "karcher", "model_stock",
    "multislerp", "nearswap", "nuslerp", "ram", "ramplus_tl", "sce",
})  # fmt: skip
"""Methods that mergekit has and evomerge has not."""
PARAMETERS = frozenset({
    "alpha", "density", "eps", "epsilon", "filter_wise", "gamma", "int8_mask", "lambda", "max_iter", "normalize",
    "normalize_weights", "nuslerp_flatten", "nuslerp_row_wise", "r", "rescale", "scale", "select_topk", "t", "tol",
    "weight",
})  # fmt: skip
"""Parameters of all of mergekit's methods."""
SWITCHES = frozenset({"normalize", "rescale", "int8_mask"})
Base: TypeAlias = Literal["none", "one of two", "task vectors"]
"""What the base is to a method: nothing, one of its two ends, or what task vectors start at, without parameters."""


def based(method: Method) -> Base:
    """What the base is to a method."""
    match method:
        case "linear" | "passthrough":
            return "none"
        case "slerp":
            return "one of two"
        case "task_arithmetic" | "ties" | "dare_ties":
            return "task vectors"
        case _:
            assert_never(method)


def read_by(method: Method) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parameters that every model may have its own of, and those that are one for all models."""
    match method:
        case "linear":
            return ("weight",), ("normalize",)
        case "slerp":
            return (), ("t",)
        case "passthrough":
            return ("scale",), ()
        case "task_arithmetic" | "ties" | "dare_ties":  # `int8_mask` saves memory there, and changes no number.
            return ("weight", "density"), ("lambda", "normalize", "rescale", "int8_mask")
        case _:
            assert_never(method)


def _method(name: Any) -> Any:
    if name in METHODS or not isinstance(name, str):
        return name
    near = difflib.get_close_matches(name, METHODS, n=1)
    why = "is a method of mergekit's that evomerge has not" if name in OTHER_METHODS else "is no method"
    hint = f"did you mean {near[0]}?" if near and name not in OTHER_METHODS else f"give one of {', '.join(METHODS)}"
    raise ValueError(f"{why}; {hint}")


def _model(value: Any) -> Any:
    """A model as mergekit writes it: `PATH`, `PATH@REVISION`, with `+ADAPTER` behind it, or keys and values of that."""
    if isinstance(value, dict) and {"model", "lora", "override_architecture"} >= value.keys() >= {"model"}:
        if value.get("override_architecture") is not None:
            raise ValueError("has another architecture than its own; take override_architecture out")
        model, adapter = _folder(value["model"]), _folder(value.get("lora"))
        return model if adapter is None else f"{model}+{adapter}"
    found = _folder(value)
    if isinstance(found, str) and found.count("+") > 1:
        raise ValueError("has more than one +, behind which mergekit looks for an adapter; link it elsewhere")
    return found


def _folder(value: Any) -> Any:
    if isinstance(value, dict) and {"path", "revision"} >= value.keys() >= {"path"}:
        return f"{value['path']}@{value['revision']}" if value.get("revision") else value["path"]
    return value


def _dtype(value: Any) -> Any:
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    if name is not None and name not in ("float32", "float16", "bfloat16"):
        raise ValueError("is not read; give one of float32, float16 and bfloat16")
    return name


def _nothing(value: Any) -> None:
    if value is not None:
        raise ValueError("is not read by evomerge; take it out")


Model: TypeAlias = Annotated[str, BeforeValidator(_model), Field(min_length=1)]
Dtype: TypeAlias = Annotated[str | None, BeforeValidator(_dtype)]
Unserved: TypeAlias = Annotated[None, BeforeValidator(_nothing)]
"""A key that mergekit reads and evomerge does not: it is refused unless it is null."""
Parameters: TypeAlias = dict[str, Any]


class Input(Value):
    """One model of those that are merged whole."""

    model: Model
    parameters: Parameters | None = None


class SliceSource(Input):
    """So many layers of one model, from the first to the one behind the last."""

    layer_range: tuple[Annotated[int, Field(ge=0, le=HOPS)], Annotated[int, Field(ge=0, le=HOPS)]]


class Slice(Value):
    """Layers that are merged with one another."""

    sources: tuple[SliceSource, ...] = Field(min_length=1, max_length=100)
    base_model: Model | None = None
    residual_weight: Unserved = None
    parameters: Parameters | None = None


class TokenizerKeys(Value):
    """What `tokenizer` may say."""

    source: Model = "union"
    tokens: Unserved = None
    pad_to_multiple_of: Unserved = None


class Mergekit(Value):
    """A configuration; `models` or `slices`."""

    merge_method: Annotated[Method, BeforeValidator(_method)]
    models: tuple[Input, ...] | None = Field(None, max_length=100)
    slices: tuple[Slice, ...] | None = Field(None, max_length=HOPS)
    modules: Unserved = None
    base_model: Model | None = None
    dtype: Dtype = None
    out_dtype: Dtype = None
    tokenizer_source: Model | None = None
    tokenizer: TokenizerKeys | None = None
    chat_template: Unserved = None
    parameters: Parameters | None = None

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if bool(self.models) == bool(self.slices):
            both = "models and slices are both there; leave one out"
            raise ValueError(both if self.models else "has neither models nor slices; give some")
        if self.tokenizer_source is not None and self.tokenizer is not None:
            raise ValueError("tokenizer_source and tokenizer are both there; leave one out")
        return self

    @property
    def lender(self) -> str | None:
        """Whose tokenizer is wanted: `base`, `union`, a model; None where nothing is said."""
        return self.tokenizer.source if self.tokenizer is not None else self.tokenizer_source

    def laid_out(self, depth: int) -> tuple[Slice, ...]:
        """The slices; of models that are merged whole, and of `depth` layers, the one there is."""
        if self.slices:
            return self.slices
        whole = [SliceSource(layer_range=(0, depth), **dict(model)) for model in self.models or ()]
        if self.base_model is not None and self.base_model not in [source.model for source in whole]:
            whole.append(SliceSource(model=self.base_model, layer_range=(0, depth)))
        return (Slice(sources=tuple(whole)),)

    def base_of(self, part: Slice) -> str | None:
        """The base of a slice: its own, or else that of all."""
        return part.base_model or self.base_model


def read_mergekit(plain: Mapping[str, Any], source: str) -> Mergekit:
    """A configuration, seen to be one that evomerge can merge.

    Raises:
        SpecError: a key, a method or a parameter is not known or not read, or models are too many or too few.
    """
    found = parse(Mergekit, dict(plain), source)
    for place, part in enumerate(found.laid_out(1)):
        where = f"slices.{place}" if found.slices else "models"
        _check_models(found, part, f"{source}: {where}")
    for where, parameters, scope in _levels(found):
        settings_of(parameters, found.merge_method, scope, f"{source}: {where}")
    return found


Scope: TypeAlias = Literal["all", "model", "base"]
"""Whether parameters stand for all models, for one, or for a base that has none."""


def settings_of(parameters: Parameters | None, method: Method, scope: Scope, where: str = "") -> dict[str, Setting]:
    """Parameters as they are read.

    Raises:
        SpecError: one is not known, is not read here, or is no number.
    """
    return {
        name: setting_of(value, switch=name in SWITCHES, where=f"{where}.{name}")
        for name, value in (parameters or {}).items()
        if _is_read(name, method, scope, where)
    }


def _is_read(name: str, method: Method, scope: Scope, where: str) -> bool:
    each, shared = read_by(method)
    if name in each and scope == "base" and based(method) == "task vectors":
        raise SpecError(f"{where}.{name} is the base's, of which {method} reads no parameters; take it out")
    if name in shared and scope != "all":
        raise SpecError(f"{where}.{name} is one for all models; write it below the slice's or the whole's parameters")
    if name in (*each, *shared):
        return True
    if name in PARAMETERS:
        raise SpecError(f"{where}.{name} is nothing that {method} reads, here or in mergekit; take it out")
    near = difflib.get_close_matches(name, (*each, *shared), n=1)
    raise SpecError(f"{where}.{name} is not a parameter; {f'did you mean {near[0]}?' if near else 'take it out'}")


def _levels(found: Mergekit) -> Iterator[tuple[str, Parameters | None, Scope]]:
    yield "parameters", found.parameters, "all"
    for place, model in enumerate(found.models or ()):
        yield f"models.{place}.parameters", model.parameters, _scope(model.model, found.base_model)
    for number, part in enumerate(found.slices or ()):
        yield f"slices.{number}.parameters", part.parameters, "all"
        for place, source in enumerate(part.sources):
            where = f"slices.{number}.sources.{place}.parameters"
            yield where, source.parameters, _scope(source.model, found.base_of(part))


def _scope(model: str, base: str | None) -> Scope:
    return "base" if model == base else "model"


def _check_models(found: Mergekit, part: Slice, where: str) -> None:
    """See that a slice has as many models as the method takes, each once, and the base among them."""
    method, models = found.merge_method, [source.model for source in part.sources]

    def refuse(why: str) -> NoReturn:
        raise SpecError(f"{where}: {why}")

    base = found.base_of(part)
    double = next((model for place, model in enumerate(models) if model in models[:place]), None)
    if double is not None:
        refuse(f"{double} is there twice; leave one out")
    if method == "passthrough" and len(models) != 1:
        refuse(f"here are {len(models)} models{', with the base' if found.models else ''}, passthrough takes one")
    if method == "slerp" and len(models) != 2:
        refuse(f"slerp goes between two models, here are {len(models)}{', with the base' if found.models else ''}")
    if based(method) != "none" and base is None:
        refuse(f"{method} needs base_model; name it")
    if based(method) != "none" and base not in models:
        refuse(f"base_model {base} is not among the sources; add it, with a layer_range")
    if len({end - first for first, end in (source.layer_range for source in part.sources)}) != 1:
        refuse("the layer ranges of the sources are of different lengths; make them equal")
