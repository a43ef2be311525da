"""mergekit configurations, key by key, against mergekit 0.1.5: what it reads is honoured, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DEMO_MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration, evaluate_setting
from mergekit.merge import run_merge
from mergekit.merge_methods import registry
from mergekit.options import MergeOptions
from pydantic import TypeAdapter
from safetensors.torch import load_file

from evomerge.assemble import merge
from evomerge.errors import SpecError
from evomerge.export import Mergekit, read_mergekit
from evomerge.export.mergekit import METHODS, OTHER_METHODS, PARAMETERS, read_by
from evomerge.export.settings import setting_of

BASE, MATHS, JAPANESE = (str(DEMO_MODELS / name) for name in ("base", "maths", "japanese"))


def weighed(model: str, weight: object = 0.5, **more: object) -> dict[str, Any]:
    return {"model": model, "parameters": {"weight": weight, **more}}


def slices(*bases: str | None, first: str = MATHS, second: str = JAPANESE, **more: Any) -> dict[str, Any]:
    """Slices of two layers of these models, each with a base of its own, in turn in one order and the other."""
    parts = []
    for place, base in enumerate(bases):
        layers = [2 * place, 2 * place + 2]
        sources = [{"model": model, "layer_range": layers} for model in (first, second)[:: 1 - 2 * (place % 2)]]
        parts.append({"sources": sources, **({"base_model": base} if base else {})})
    return {"merge_method": "slerp", "slices": parts, "parameters": {"t": 0.2}, **more}


LINEAR = {"merge_method": "linear", "models": [weighed(MATHS), weighed(JAPANESE)]}
TIES = {"merge_method": "ties", "base_model": BASE, "models": [weighed(MATHS, density=0.5), weighed(JAPANESE)]}
SLERP = slices(None, None, None, base_model=MATHS)
PASS = {"merge_method": "passthrough", "slices": [{"sources": [{"model": MATHS, "layer_range": [0, 6]}]}]}


def test_what_mergekit_knows_is_known_by_name() -> None:
    """All methods and parameters of this release, so that a new one is not taken for a misspelt key."""
    methods = {method.spec.name: method.spec for method in registry.registered_methods()}
    assert set(methods) == {*METHODS, *OTHER_METHODS}
    assert {parameter.name for spec in methods.values() for parameter in spec.parameters} == PARAMETERS
    for name in METHODS:
        each, shared = read_by(name)
        by_scope = {parameter.name: parameter.scope.value for parameter in methods[name].parameters}
        assert by_scope.keys() == {*each, *shared}
        assert {key for key, scope in by_scope.items() if scope == "shared"} == {*shared}
    assert MergeConfiguration.model_fields.keys() == Mergekit.model_fields.keys()


KEPT: dict[str, dict[str, Any]] = {
    "slerp whose slices have their own base": slices(MATHS, JAPANESE, None, base_model=MATHS),
    "slerp whose slices alone have a base": slices(MATHS, MATHS, JAPANESE),
    "slerp of models, the base last": {
        "merge_method": "slerp",
        "base_model": JAPANESE,
        "models": [{"model": MATHS}, {"model": JAPANESE}],
        "parameters": {"t": [0.0, 1.3]},
    },
    "ties whose slices alone have a base": slices(
        BASE, BASE, BASE, first=BASE, merge_method="ties", parameters={"weight": 0.7, "int8_mask": True}
    ),
    "linear with a base that is no model": {**LINEAR, "base_model": BASE, "parameters": {"weight": "2.5e-1"}},
    "switches that change between layers": {**LINEAR, "parameters": {"normalize": [False, True]}},
    "dtypes of torch, models as keys and values": {
        "merge_method": "linear",
        "models": [{**weighed(MATHS), "model": {"model": {"path": MATHS}}}, weighed(JAPANESE)],
        "dtype": "torch.float32",
        "out_dtype": "torch.bfloat16",
    },
    "a tokenizer of the base": {**TIES, "tokenizer_source": "base", "models": [weighed(MATHS), weighed(JAPANESE)]},
    "a union of equal tokenizers": {**LINEAR, "tokenizer": {"source": "union"}},
    "a tokenizer by its model": {**LINEAR, "tokenizer_source": MATHS},
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_read_means_what_it_means_there(name: str, tmp_path: Path) -> None:
    plain = {"dtype": "float32", "out_dtype": "float16", **KEPT[name]}
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    merge(tmp_path / "c.yml", tmp_path / "ours")
    run_merge(MergeConfiguration.model_validate(plain), str(tmp_path / "theirs"), MergeOptions(quiet=True))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype
        step = torch.finfo(tensor.dtype).eps
        assert torch.allclose(tensor.float(), theirs[key].float(), rtol=step, atol=1e-7), key


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**LINEAR, "models": []}, "has neither models nor slices; give some"),
    ({**LINEAR, "slices": PASS["slices"]}, "models and slices are both there; leave one out"),
    ({**LINEAR, "slies": 1}, "slies is not a key here; did you mean slices?"),
    ({**LINEAR, "modules": {"default": {"models": LINEAR["models"]}}}, 'modules: {"default": {"models"'),
    ({**LINEAR, "chat_template": "auto"}, 'chat_template: "auto" is not read by evomerge; take it out'),
    ({**LINEAR, "dtype": "float64"}, 'dtype: "float64" is not read; give one of float32, float16 and bfloat16'),
    ({**LINEAR, "out_dtype": "torch.half"}, 'out_dtype: "torch.half" is not read'),
    ({**LINEAR, "dtype": 16}, "dtype: 16 is not read"),
    ({**LINEAR, "merge_method": "della"}, "is a method of mergekit's that evomerge has not"),
    ({**LINEAR, "merge_method": "dare_tie"}, 'merge_method: "dare_tie" is no method; did you mean dare_ties?'),
    ({**LINEAR, "merge_method": ["linear"]}, 'merge_method is ["linear"]'),
    ({**LINEAR, "tokenizer": {"source": "base", "tokens": {"<x>": {"source": MATHS}}}}, "tokenizer.tokens"),
    ({**LINEAR, "tokenizer": {"pad_to_multiple_of": 64}}, "tokenizer.pad_to_multiple_of: 64 is not read"),
    ({**LINEAR, "tokenizer": {"source": "union"}, "tokenizer_source": "base"}, "are both there"),
    ({**LINEAR, "models": [{**weighed(MATHS), "layer_range": [0, 3]}]}, "models.0.layer_range is not a key here"),
    ({**LINEAR, "models": [weighed(f"{MATHS}+x+y")]}, "has more than one +"),
    ({**LINEAR, "models": [{"model": {"model": MATHS, "override_architecture": "x"}}]}, "has another architecture"),
    ({**LINEAR, "models": [weighed(MATHS), weighed(MATHS)]}, "models: "),
    ({**LINEAR, "models": [{"model": 7}]}, "models.0.model is 7"),
    ({**LINEAR, "models": [weighed(MATHS, "much")]}, "models.0.parameters.weight is much; give a number"),
    ({**LINEAR, "models": [weighed(MATHS, float("nan"))]}, "models.0.parameters.weight is nan; give a number"),
    ({**LINEAR, "models": [weighed(MATHS, 1e308)]}, "weight is 1e+308; give a number from -1,000,000"),
    ({**LINEAR, "models": [weighed(MATHS, None)]}, "weight is None; give a number"),
    ({**LINEAR, "models": [weighed(MATHS, [])]}, "weight is empty; give a value"),
    ({**LINEAR, "models": [weighed(MATHS, [0.5, [1]])]}, "weight is [0.5, [1]]; give a number"),
    ({**LINEAR, "models": [weighed(MATHS, [{"value": 1}, 2])]}, "weight mixes values and filters"),
    ({**LINEAR, "models": [weighed(MATHS, {"filter": "mlp"})]}, "weight.0.value is missing; write it"),
    ({**LINEAR, "models": [weighed(MATHS, {"filters": "mlp", "value": 1})]}, "weight.0.filters is not a key here"),
    ({**LINEAR, "models": [weighed(MATHS, {"filter": 1, "value": 1})]}, "weight.0.filter is 1"),
    ({**LINEAR, "models": [weighed(MATHS, density=0.5)]}, "density is nothing that linear reads, here or in mergekit"),
    ({**LINEAR, "models": [weighed(MATHS, wieght=0.5)]}, "wieght is not a parameter; did you mean weight?"),
    ({**LINEAR, "models": [weighed(MATHS, normalize=True)]}, "normalize is one for all models; write it below the"),
    ({**LINEAR, "parameters": {"t": 0.5}}, "parameters.t is nothing that linear reads"),
    ({**LINEAR, "parameters": {"normalize": 0.5}}, "parameters.normalize is 0.5; give true or false"),
    ({**LINEAR, "parameters": [1]}, "parameters is [1]"),
    ({**TIES, "models": [weighed(BASE), weighed(MATHS)]}, "weight is the base's, of which ties reads no parameters"),
    ({**TIES, "base_model": None}, "models: ties needs base_model; name it"),
    ({**SLERP, "base_model": None}, "slices.0: slerp needs base_model; name it"),
    ({**SLERP, "base_model": BASE}, f"slices.0: base_model {BASE} is not among the sources; add it"),
    ({**SLERP, "parameters": {"t": 0.5, "weight": 1}}, "parameters.weight is nothing that slerp reads"),
    ({"merge_method": "slerp", "base_model": BASE, "models": [{"model": MATHS}, {"model": JAPANESE}]},
     "models: slerp goes between two models, here are 3, with the base"),
    ({**PASS, "slices": [{"sources": SLERP["slices"][0]["sources"]}]}, "slices.0: here are 2 models"),
    ({**PASS, "slices": [{"sources": []}]}, "slices.0.sources is []"),
    ({**PASS, "slices": [{"sources": [{"model": MATHS}]}]}, "slices.0.sources.0.layer_range is missing"),
    ({**PASS, "slices": [{"sources": [{"model": MATHS, "layer_range": [0, 2, 3]}]}]}, "layer_range"),
    ({**PASS, "slices": [{"sources": [{"model": MATHS, "layer_range": ["0", "2"]}]}]}, "layer_range"),
    ({**PASS, "slices": [{**PASS["slices"][0], "residual_weight": 0.5}]}, "residual_weight: 0.5 is not read"),
]  # fmt: skip


@pytest.mark.parametrize("model", [f"{MATHS}+adapter", {"model": MATHS, "lora": "adapter"}])
def test_an_adapter_over_another_model_is_refused(model: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(yaml.safe_dump({**TIES, "models": [weighed(model)]}))
    with pytest.raises(SpecError, match=r"\+adapter: the adapter is over another model than the base"):
        merge(tmp_path / "c.yml", tmp_path / "out")


@pytest.mark.parametrize(("plain", "words"), REFUSED)
def test_what_is_not_read_is_refused_by_its_key(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_mergekit(plain, "c.yml")
    text = str(refused.value)
    assert text.startswith("c.yml: ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (slices(MATHS, MATHS, JAPANESE, merge_method="ties", parameters={"weight": 1}), "slices have different bases"),
        ({**TIES, "tokenizer_source": MATHS}, "tokenizer_source: .*maths is not the model that lends the config"),
        ({**LINEAR, "tokenizer_source": "base"}, "tokenizer_source: base is not the model that lends the config"),
        ({**TIES, "parameters": {"rescale": True}}, "parameters.rescale: true is not read with ties"),
        ({**TIES, "models": [weighed(MATHS, density=-0.5)]}, "density of .*maths is -0.5; give 0 to 1"),
        ({**LINEAR, "models": [weighed(MATHS, 1), weighed(JAPANESE, -1)]}, "weights sum to 0"),
        ({**LINEAR, "models": [weighed(MATHS, {"filter": "mlp", "value": 1})]}, "parameter weight is not set for"),
    ],
)
def test_what_its_models_rule_out_is_refused(plain: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    with pytest.raises(SpecError, match=words):
        merge(tmp_path / "c.yml", tmp_path / "out")


NUMBER = st.floats(-2, 2) | st.integers(-2, 2) | st.sampled_from(["0.5", "1e-1", True])
VALUE = NUMBER | st.lists(NUMBER, min_size=1, max_size=4)
FILTERED = st.fixed_dictionaries({"value": VALUE, "filter": st.sampled_from(["mlp", "*", "layers.1", None])})


@settings(deadline=None)
@given(VALUE | FILTERED | st.lists(FILTERED, min_size=1, max_size=3), st.floats(0, 1), st.booleans())
def test_gradients_and_filters_give_mergekits_numbers(plain: Any, depth: float, switch: bool) -> None:
    if switch:
        plain = [False, True, True] if isinstance(plain, list) else {"value": [True, False]}
    validate = TypeAdapter(bool if switch else float).validate_python
    theirs = MergeConfiguration.model_validate(
        {"merge_method": "linear", "models": [{"model": "x"}], "parameters": {"x": plain}}
    ).parameters
    ours = setting_of(plain, switch=switch, where="x")
    for tensor in ("model.layers.1.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight"):
        assert theirs is not None
        assert ours.at(tensor, depth) == evaluate_setting(tensor, theirs["x"], depth, validate=validate)
