"""Models that fit are opened however their folders are written; those that do not are refused, and say why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_MODELS
from families import make_family
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.checkpoint import open_parents
from evomerge.errors import SpecError
from evomerge.spec import load_run, parent_source


@pytest.fixture
def expert(tmp_path: Path) -> Path:
    """A private copy of a demo expert."""
    shutil.copytree(DEMO_MODELS / "maths", tmp_path / "maths")
    return tmp_path / "maths"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def opened(expert: Path, base: Path = DEMO_MODELS / "base") -> bool:
    return open_parents(str(base), {"maths": str(expert)}, 0).anatomy.layers == 6


def test_only_the_tokenizer_json_counts_where_both_have_one(expert: Path) -> None:
    (expert / "vocab.json").write_text("{}")
    (expert / "merges.txt").write_text("")
    assert opened(expert)
    assert open_parents(str(expert), {"other": str(DEMO_MODELS / "base")}, 0).anatomy.layers == 6
    (expert / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"has no tokenizer\.json"):
        opened(expert)


def test_a_tokenizer_may_be_written_in_several_ways(expert: Path) -> None:
    def in_the_old_way(plain: dict[str, Any]) -> None:
        plain["model"]["merges"] = [" ".join(pair) for pair in plain["model"]["merges"]]
        plain["model"]["continuing_subword_prefix"] = ""
        del plain["model"]["ignore_merges"]
        plain["truncation"] = {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0}
        offsets = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
        plain["post_processor"] = {"type": "Sequence", "processors": [offsets, plain["post_processor"]]}

    edit(expert / "tokenizer.json", in_the_old_way)
    text = "Solve: 二十足す三十は？ =>"
    ids = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (expert, DEMO_MODELS / "base")]
    assert ids[0].encode(text).ids == ids[1].encode(text).ids
    assert opened(expert)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: p["model"]["merges"].reverse(), "its model"),
        (lambda p: p.update(normalizer={"type": "Lowercase"}), "its normalizer"),
        (lambda p: p["model"]["vocab"].update(ZZ=9999), "its vocabulary"),
        (lambda p: p.update(decoder={"type": "Fuse"}), "its decoder"),
    ],
)
def test_another_tokenizer_is_refused(change: Callable[[Any], object], what: str, expert: Path) -> None:
    edit(expert / "tokenizer.json", change)
    with pytest.raises(SpecError, match=rf"models\.experts\.maths.*differs from models\.base's in {what}"):
        opened(expert)


def test_what_trainers_leave_in_a_config_is_no_difference(expert: Path) -> None:
    left = {
        "unsloth_version": "2025.1",
        "attention_dropout": 0.1,
        "initializer_range": 0.01,
        "torchscript": True,
        "use_sliding_window": False,
        "_name_or_path": "/home/somebody/model",
        "transformers_version": "4.40.0",
        "use_cache": False,
        "pretraining_tp": 2,
    }
    edit(expert / "config.json", lambda plain: plain.update(left))
    assert opened(expert)
    assert opened(DEMO_MODELS / "base", base=expert)


def test_a_key_left_out_has_the_default_of_its_class(expert: Path) -> None:
    plain = json.loads((expert / "config.json").read_text())
    assert plain["attention_bias"] is False
    edit(expert / "config.json", lambda plain: plain.pop("attention_bias"))
    assert opened(expert)


@pytest.mark.parametrize(("family", "key", "value"), [
    ("qwen2", "hidden_act", "gelu"),
    ("gpt2", "layer_norm_epsilon", 1e-6),
    ("gemma2", "final_logit_softcapping", 20.0),
    ("qwen3", "rope_parameters", {"rope_type": "default", "rope_theta": 7.0}),
])  # fmt: skip
def test_a_key_that_changes_the_computation_is_refused(family: str, key: str, value: object, tmp_path: Path) -> None:
    paths = make_family(family, tmp_path, ("base", "one"))
    edit(paths["one"] / "config.json", lambda plain: plain.update({key: value}))
    with pytest.raises(SpecError, match=rf"models\.experts\.one.*{key} is "):
        open_parents(str(paths["base"]), {"one": str(paths["one"])}, 0)


def with_eyes(folder: Path) -> Path:
    """A model that sees, whose config has others within it."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "head_dim": 8, "num_key_value_heads": 2, "vocab_size": 512, "sliding_window": 16}
    eyes = {**sizes, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=eyes, mm_tokens_per_image=4)
    config.image_token_index = config.image_token_id = 500
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO_MODELS / "base" / file, folder / file)
    return folder


def test_configs_within_a_config_are_compared_key_by_key(tmp_path: Path) -> None:
    one = with_eyes(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    assert open_parents(None, {"one": str(one), "two": str(two)}, 0)
    edit(two / "config.json", lambda plain: plain["text_config"].update(use_cache=False, initializer_range=0.5))
    assert open_parents(None, {"one": str(one), "two": str(two)}, 0)
    edit(two / "config.json", lambda plain: plain["text_config"].update(rms_norm_eps=0.5))
    with pytest.raises(
        SpecError, match=r"two.*: text_config\.rms_norm_eps is 0\.5, in models\.experts\.one it is 1e-06"
    ):
        open_parents(None, {"one": str(one), "two": str(two)}, 0)


def test_another_window_counts_where_it_turns_positions_otherwise(expert: Path) -> None:
    edit(expert / "config.json", lambda plain: plain.update(max_position_embeddings=4096))
    assert opened(expert)
    base = expert.with_name("base")
    shutil.copytree(DEMO_MODELS / "base", base)
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    for folder in (expert, base):
        edit(folder / "config.json", lambda plain: plain.update(rope_parameters=rope))
    with pytest.raises(SpecError, match="max_position_embeddings is 4096"):
        opened(expert, base)


def test_families_are_told_apart_by_name(tmp_path: Path) -> None:
    one, other = make_family("qwen2", tmp_path / "a", ("base",)), make_family("qwen3", tmp_path / "b", ("base",))
    with pytest.raises(SpecError, match="model_type is 'qwen3', in models.base it is 'qwen2'"):
        open_parents(str(one["base"]), {"one": str(other["base"])}, 0)


def test_no_expert_is_called_base(expert: Path) -> None:
    with pytest.raises(SpecError, match=r"models\.experts: 'base' is the base's own name; choose another"):
        open_parents(str(DEMO_MODELS / "base"), {"base": str(expert)}, 0)
    with pytest.raises(SpecError, match="choose another"):
        open_parents(None, {"base": str(expert)}, 0)


def test_a_path_is_not_looked_for_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models/maths` in a run file elsewhere is beside it, or a hub id: never what happens to lie here."""
    (tmp_path / "here/models").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(DEMO_MODELS / "maths", tmp_path / "here/models/maths")
    (tmp_path / "elsewhere/run.yaml").write_text("models: {experts: {m: models/maths}}")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(
        SpecError, match=r"run\.yaml: models\.experts\.m: models/maths is in the working directory, not"
    ):
        load_run(tmp_path / "elsewhere/run.yaml")
    assert parent_source("models/maths", tmp_path / "here") == str(tmp_path / "here/models/maths")
    assert parent_source("maths", tmp_path / "elsewhere") == str(tmp_path / "elsewhere/maths")
    assert parent_source("models/maths@main", tmp_path / "elsewhere") == "models/maths@main"
    with pytest.raises(SpecError, match=r"models\.experts\.m: \./none does not exist"):
        open_parents(None, {"m": "./none"}, 0)
