"""Code that comes with models runs only where `trust_remote_code` says so; nobody is asked."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import DEMO_MODELS, ROOT, Typed, refused, small_fitness

Cli = Callable[..., Typed]
Write = Callable[..., Path]
CODE = """
import sys
print("it ran", file=sys.stderr)
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own_family"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
NAMES = ("base", "maths", "japanese")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The demo's models, as a family that only code beside them knows."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name in NAMES:
        folder = Path(shutil.copytree(DEMO_MODELS / name, tmp_path / name))
        (folder / "own.py").write_text(CODE)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own_family", "architectures": ["OwnForCausalLM"]}
        config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
        (folder / "config.json").write_text(json.dumps(config))
    return {name: str(tmp_path / name) for name in NAMES}


def models(own: dict[str, str], **more: object) -> dict[str, object]:
    return {"base": own["base"], "experts": {name: own[name] for name in NAMES[1:]}, **more}


def mergekit(own: dict[str, str], folder: Path) -> Path:
    plain = {"merge_method": "linear", "models": [{"model": own[n], "parameters": {"weight": 0.5}} for n in NAMES[1:]]}
    path = folder / "mergekit.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def test_code_of_models_is_refused_unless_it_is_trusted(
    own: dict[str, str], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    fitness = tmp_path / "fit.yaml"
    fitness.write_text(yaml.safe_dump(small_fitness("lists", search=4, confirm=4)))
    run = run_file(models=models(own))
    words = ["config.json is understood only by code that comes with the model", "models.trust_remote_code: true"]
    for found in (
        cli("plan", run),
        cli("search", run, "--out", tmp_path / "R"),
        cli("merge", mergekit(own, tmp_path), "--out", tmp_path / "M"),
        cli("score", own["maths"], "--fitness", fitness),
    ):
        refused(found, *words, "--trust-remote-code")
        assert "it ran" not in found.err + found.out
    assert not (tmp_path / "R").exists() and not (tmp_path / "M").exists()


def test_code_of_models_runs_where_it_is_trusted_and_plan_says_so(
    own: dict[str, str], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    fitness = tmp_path / "fit.yaml"
    fitness.write_text(yaml.safe_dump(small_fitness("lists", search=4, confirm=4)))
    found = cli("plan", run_file(models=models(own, trust_remote_code=True), fitness=str(fitness)))
    assert found.status == 0, found
    said = "code that comes with the models may run (models.trust_remote_code)"
    assert 0 < found.err.index(said) < found.err.index("it ran")
    assert "note       models.trust_remote_code is true: code that comes with the models runs" in found.out
    merged = cli("merge", mergekit(own, tmp_path), "--out", tmp_path / "M", "--trust-remote-code")
    assert merged.status == 0, merged
    assert (tmp_path / "M/own.py").read_text() == CODE
    assert cli("score", tmp_path / "M", "--fitness", fitness, "--trust-remote-code").status == 0


def test_whatever_loads_models_says_whether_their_code_is_trusted() -> None:
    silent = []
    for path in sorted((ROOT / "evomerge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                loads = node.func.attr in ("from_pretrained", "from_config")
                if loads and not any(keyword.arg == "trust_remote_code" for keyword in node.keywords):
                    silent.append(f"{path}:{node.lineno}")
    assert not silent
