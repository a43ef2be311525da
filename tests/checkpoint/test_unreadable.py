"""A folder that a library cannot make a model of is refused in one line: file, entry, value, way out."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_MODELS, Typed, refused

from evomerge.checkpoint import open_parents
from evomerge.errors import SpecError


def said(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes what a JSON file says."""

    def damage(folder: Path) -> None:
        plain = json.loads((folder / file).read_text())
        change(plain)
        (folder / file).write_text(json.dumps(plain))

    return damage


def written(file: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(content) and None


def cut(file: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size]) and None


def replaced(file: str, by: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        by(folder / file)

    return damage


def config(**changes: object) -> Callable[[Path], None]:
    return said("config.json", lambda plain: plain.update(changes))


NOBODY = 65534
INDEX = "model.safetensors.index.json"
CASES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "config null": ("maths", written("config.json", "null"), ("config.json", "null")),
    "config a list": ("maths", written("config.json", "[1]"), ("config.json", "[1]")),
    "config nested deep": ("maths", written("config.json", "[" * 9999), ("config.json", "JSON")),
    "config a folder": ("maths", replaced("config.json", Path.mkdir), ("config.json", "cannot be read")),
    "config binary": ("maths", lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00") and None, ("config.json",)),
    "config a loop": ("maths", replaced("config.json", lambda p: p.symlink_to(p.name)), ("cannot be read",)),
    "config a dangling link": (
        "maths",
        replaced("config.json", lambda p: p.symlink_to("nowhere")),
        ("has no config.json",),
    ),
    "index without map": (
        "maths",
        replaced("model.safetensors", lambda p: p.with_name(INDEX).write_text("{}")),
        (INDEX, "weight_map"),
    ),
    "weights a folder": ("maths", replaced("model.safetensors", Path.mkdir), ("neither model.safetensors",)),
    "weights cut": ("maths", cut("model.safetensors", 9000), ("model.safetensors", "damaged")),
    "tokenizer cut": ("maths", cut("tokenizer.json", 9000), ("maths/tokenizer.json",)),
    "tokenizer a folder": ("maths", replaced("tokenizer.json", Path.mkdir), ("tokenizer.json",)),
    "tokenizer without model": ("maths", said("tokenizer.json", lambda p: p.pop("model")), ("maths/tokenizer.json",)),
    "tokenizer with a token that has no id": (
        "maths",
        said("tokenizer.json", lambda p: p["added_tokens"][0].pop("id")),
        ("maths/tokenizer.json",),
    ),
    "tokenizer with a list for an id": (
        "maths",
        said("tokenizer.json", lambda p: p["model"]["vocab"].update({"a": [[]]})),
        ("maths/tokenizer.json",),
    ),
    "tokenizer config cut": ("base", written("tokenizer_config.json", "{"), ("base/tokenizer_config.json",)),
    "heads do not divide": ("base", config(num_attention_heads=3), ("base/config.json", "num_attention_heads: 3")),
    "dtype unknown": ("base", config(dtype="float1"), ("base/config.json", "dtype: 'float1'")),
    "activation unknown": ("base", config(hidden_act="sillu"), ("base/config.json", "hidden_act: 'sillu'")),
    "rope unknown": (
        "base",
        config(rope_parameters={"rope_type": "evil", "rope_theta": 1.0}),
        ("base/config.json", "rope_type: 'evil'"),
    ),
    "size no number": ("base", config(hidden_size="wide"), ("base/config.json", "hidden_size: 'wide'")),
    "size negative": ("base", config(hidden_size=-64), ("base/config.json",)),
    "depth beyond the weights": ("maths", config(num_hidden_layers=9), ("num_hidden_layers is 9",)),
    "no such type": ("base", config(model_type="lama"), ("base/config.json", "lama")),
    "no language model": ("base", written("config.json", '{"model_type": "t5"}'), ("base/config.json", "t5", "causal")),
    "no type": ("base", written("config.json", "{}"), ("base/config.json",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_a_model_is_refused_in_one_line(
    case: str, cli: Callable[..., Typed], run_file: Callable[..., Path], tmp_path: Path
) -> None:
    where, damage, words = CASES[case]
    models = {name: Path(shutil.copytree(DEMO_MODELS / name, tmp_path / name)) for name in ("base", "maths")}
    damage(models[where])
    run = run_file(models={"base": str(models["base"]), "experts": {"maths": str(models["maths"])}})
    refused(cli("plan", run), *words, str(models[where]))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "."])
def test_what_may_not_be_read_is_refused_in_one_line(name: str) -> None:
    with tempfile.TemporaryDirectory() as top:
        folder = Path(shutil.copytree(DEMO_MODELS / "maths", Path(top, "maths")))
        Path(top).chmod(0o755)
        (folder / name).chmod(0o311 if name == "." else 0)
        user = os.geteuid()
        os.seteuid(user or NOBODY)  # Root may read everything.
        try:
            with pytest.raises(SpecError, match=r"cannot be (read|listed).*\(Permission denied\)"):
                open_parents(None, {"base of all": str(DEMO_MODELS / "base"), "maths": str(folder)}, 0)
        finally:
            os.seteuid(user)
