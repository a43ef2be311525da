"""What is merged of a folder is what stock transformers loads from it, tensor by tensor; what nobody loads is named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from classes import mean_of as half
from classes import relatives
from families import make_family
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.assemble import merge
from evomerge.checkpoint import open_parents
from evomerge.checkpoint.side import NOT_FETCHED
from evomerge.errors import SpecError
from evomerge.materialize import LiveModel

HEAD, WORDS = "lm_head.weight", "model.embed_tokens.weight"
UP = "model.layers.1.mlp.up_proj.weight"
TOKENS = torch.arange(3, 19)[None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family("llama", tmp_path_factory.mktemp("llama"), ("one", "two"))


@pytest.fixture
def pair(made: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Private copies of two models whose config ties head and embeddings."""
    return {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in made.items()}


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a folder."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def opened(pair: dict[str, Path]) -> Any:
    return open_parents(None, {name: str(path) for name, path in pair.items()}, 0)


def stock(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def check(pair: dict[str, Path], out: Path) -> Any:
    """The mean of two folders is the mean of what stock transformers loads from each, alive and exported."""
    files = opened(pair)
    recipe = half(files)
    merge(recipe, out)
    live = LiveModel(files, torch.device("cpu"))
    live.load(recipe)
    one, two, mean = (stock(folder) for folder in (*pair.values(), out))
    for name, tensor in mean.state_dict().items():
        expected = (one.state_dict()[name].double() + two.state_dict()[name].double()) / 2
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)
    with torch.inference_mode():
        assert torch.equal(live.model(TOKENS).logits, mean(TOKENS).logits)
    return files


def own_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors[HEAD] = tensors[WORDS] + 0.25


@pytest.mark.parametrize("which", [("one",), ("two",), ("one", "two")])
def test_a_head_of_its_own_is_merged_though_the_config_ties_it(
    which: tuple[str, ...], pair: dict[str, Path], tmp_path: Path
) -> None:
    for name in which:
        weights(pair[name], own_head)
    files = check(pair, tmp_path / "out")
    assert "head" in files.anatomy.outer
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


def test_a_config_that_does_not_tie_is_merged_with_one_that_does(pair: dict[str, Path], tmp_path: Path) -> None:
    config(pair["two"], tie_word_embeddings=False)
    with pytest.raises(SpecError, match=r"two.* has no tensor for lm_head\.weight"):
        opened(pair)
    weights(pair["two"], own_head)
    check(pair, tmp_path / "out")


def test_a_tied_head_is_one_tensor_wherever_it_is_written(pair: dict[str, Path], tmp_path: Path) -> None:
    weights(pair["one"], lambda t: t.update({HEAD: t[WORDS].clone()}))
    weights(pair["two"], lambda t: t.update({HEAD: t.pop(WORDS)}))
    files = check(pair, tmp_path / "out")
    assert files.anatomy.outer == ("embeddings", "norm")


def surplus(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP.replace(".weight", ".lora_A.weight")] = torch.ones(2, 32)
    tensors[UP.replace(".1.", ".7.")] = tensors[UP].clone()
    tensors[UP.replace(".weight", ".bias")] = torch.full((64,), torch.inf)
    tensors["model.layers.0.self_attn.mask"] = torch.ones(4, 4, dtype=torch.bool).tril()
    tensors["big"] = torch.zeros(2000, 200, dtype=torch.int64)


def test_what_the_class_does_not_load_is_named_and_decides_nothing(pair: dict[str, Path], tmp_path: Path) -> None:
    weights(pair["two"], surplus)
    files = check(pair, tmp_path / "out")
    (remark,) = files.remarks()
    assert remark.startswith("models.experts.two") and remark.endswith("5 tensors are not loaded by the class")
    for name in ("lora_A", "layers.7", "up_proj.bias", "self_attn.mask", "big"):
        assert name in remark


def test_a_single_file_wins_over_an_index_beside_it(pair: dict[str, Path], tmp_path: Path) -> None:
    shards = load_file(pair["one"] / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in shards.items()}, pair["one"] / "other.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(shards, "other.safetensors")}
    (pair["one"] / "model.safetensors.index.json").write_text(json.dumps(index))
    files = check(pair, tmp_path / "out")
    assert "other.safetensors (other weights)" in files.remarks()[0]


def in_double(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] = tensors[UP].double()


def test_one_tensor_of_another_precision_is_read_as_what_it_is(pair: dict[str, Path], tmp_path: Path) -> None:
    weights(pair["one"], in_double)
    weights(pair["two"], lambda t: t.update({UP: t[UP].half()}))
    assert check(pair, tmp_path / "out").parents.dtype == "float32"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn), f"{UP}_scale": torch.ones(1)}), "stored as F8_E4M3"),
        (lambda t: t.update({UP: t[UP].to(torch.int8)}), "stored as I8"),
        (lambda t: t.update({UP: t[UP] > 0}), "stored as BOOL"),
        (lambda t: t.update({UP: t[UP].long()}), "stored as I64"),
        (lambda t: t.update({UP: t[UP].to(torch.complex64)}), "stored as C64"),
        (lambda t: t.update({UP: torch.full_like(t[UP], 1e300, dtype=torch.float64)}), "numbers beyond fp32"),
        (lambda t: t[UP].view(-1)[3:4].fill_(torch.nan), "holds NaN or infinity"),
        (lambda t: t.update({UP.replace("weight", "qweight"): t.pop(UP).to(torch.int32)}), "as quantised models have"),
        (lambda t: t.update({UP.removeprefix("model."): t[UP].clone()}), "both are model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.pop(UP), f"has no tensor for {UP}"),
    ],
)
def test_a_tensor_of_unknown_meaning_is_refused_by_name(
    change: Callable[[Any], object], words: str, pair: dict[str, Path]
) -> None:
    weights(pair["two"], change)
    with pytest.raises(SpecError, match=r"^models\.experts\.two: [^\n]*up_proj[^\n]*$") as refusal:
        opened(pair)
    assert words in str(refusal.value)


def test_quantisation_is_refused_where_the_config_says_it(pair: dict[str, Path]) -> None:
    config(pair["two"], quantization_config=None)
    assert opened(pair)
    config(pair["two"], quantization_config={"quant_method": "fp8"})
    with pytest.raises(SpecError, match=r"config\.json: quantization_config says .* \(fp8\)"):
        opened(pair)


def test_what_the_class_keeps_in_fp32_is_merged_in_fp32(tmp_path: Path) -> None:
    sizes = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": 8}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_oss", **sizes))
    paths = {name: Path(path) for name, path in relatives(model, tmp_path, original=True).items()}
    for path in paths.values():
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16).save_pretrained(path)
    files = opened(paths)
    assert files.parents.dtype == "float16"
    merge(half(files), tmp_path / "out")
    one, two, mean = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (*paths.values(), tmp_path / "out"))
    assert {mean[name].dtype for name in mean if "layernorm" in name} == {torch.float32}
    for name, tensor in mean.items():
        assert torch.equal(tensor, ((one[name].double() + two[name].double()) / 2).to(tensor.dtype))
    live = LiveModel(files, torch.device("cpu"))
    live.load(half(files))
    with torch.inference_mode():
        assert torch.equal(live.model(TOKENS).logits, stock(tmp_path / "out")(TOKENS).logits)


def test_an_adapter_beside_a_model_is_refused(pair: dict[str, Path]) -> None:
    (pair["two"] / "adapter_config.json").write_text("{}")
    with pytest.raises(SpecError, match=r"two.*adapter_config\.json: stock loading applies this adapter"):
        opened(pair)


def test_what_lies_beside_the_weights_goes_along_or_is_named(pair: dict[str, Path], tmp_path: Path) -> None:
    along = [
        "spiece.model",
        "preprocessor_config.json",
        "merges.txt",
        "more.jinja",
        "additional_chat_templates/rag.jinja",
    ]
    behind = ["README.md", "training_args.bin", "modeling_own.py", "checkpoint-5/model.safetensors", ".cache/x"]
    for name in (*along, *behind):
        (pair["one"] / name).parent.mkdir(exist_ok=True)
        (pair["one"] / name).write_text(name)
    (remark,) = opened(pair).remarks()
    for name in (
        "README.md (describes",
        "training_args.bin (other",
        "modeling_own.py (code)",
        "checkpoint-5 (a folder)",
    ):
        assert name in remark
    out = tmp_path / "out"
    merge(half(opened(pair)), out)
    assert all((out / name).read_text() == name for name in along)
    assert not any((out / name).exists() for name in behind)
    sums = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    assert set(along) <= sums
    merge(half(opened(pair)), out, force=True)


def test_of_a_model_on_the_hub_all_is_fetched_that_goes_along_and_no_other_weights() -> None:
    along = (
        "config.json model.safetensors.index.json model-00001-of-00002.safetensors spiece.model vocab.bpe a.tiktoken"
    )
    along += " tokenizer.json merges.txt chat_template.jinja additional_chat_templates/rag.jinja LICENSE"
    behind = "pytorch_model.bin pytorch_model.bin.index.json model.gguf original/x.safetensors onnx/config.json own.py"
    behind += " consolidated.00.safetensors .gitattributes assets/a.png tf_model.h5"
    names = [*along.split(), *behind.split()]
    assert list(filter_repo_objects(names, ignore_patterns=[*NOT_FETCHED])) == along.split()


def test_a_changed_bit_is_seen_whatever_the_time_of_the_file_says(pair: dict[str, Path]) -> None:
    files = opened(pair)
    path = pair["two"] / "model.safetensors"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert opened(pair).parents.models["two"].digest != files.parents.models["two"].digest
    with pytest.raises(SpecError, match=r"two.*has other content than when it was last read"):
        files.read_again()
