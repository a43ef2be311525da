"""Whatever folders `evomerge init` is given, the file it writes is understood and means those folders."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEMO_MODELS, Typed

from evomerge.recipe import expert_names
from evomerge.spec import load_run

Cli = Callable[..., Typed]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders with the names that people's models have."""
    for name in ("Qwen2.5-0.5B", "models/Qwen2.5 (maths)", "models/base", "models/own", "ja+en@v2", "other/own"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(DEMO_MODELS / "maths")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("out", ["run.yaml", "sub/run.yaml", "sub/../sub/run.yaml"])
def test_any_folder_name_becomes_a_name_that_is_understood(out: str, workplace: Path, cli: Cli) -> None:
    experts = ["models/Qwen2.5 (maths)", "models/base", "./models/own", "ja+en@v2", "other/own"]
    hub = "somebody/Model-1.5B@main"
    found = cli("init", "Qwen2.5-0.5B", *experts, hub, workplace / "other/own", "--out", out)
    assert found.status == 0, found.err
    models = load_run(workplace / out).models
    assert models.base == str(workplace / "Qwen2.5-0.5B")
    assert models.experts == {
        "Qwen2-5 -maths": str(workplace / "models/Qwen2.5 (maths)"),
        "base 2": str(workplace / "models/base"),
        "own 2": str(workplace / "models/own"),
        "ja-en-v2": str(workplace / "ja+en@v2"),
        "own 3": str(workplace / "other/own"),
        "Model-1-5B": hub,
        "own 4": str(workplace / "other/own"),
    }


def test_the_examples_leave_alone_what_benchmarks_are_reported_on(workplace: Path, cli: Cli) -> None:
    assert cli("init", "Qwen2.5-0.5B", "other/own", "--out", "run.yaml").status == 0
    fitness = load_run(workplace / "run.yaml").fitness
    assert {objective.task: objective.split for objective in fitness.objectives.values()} == {
        "arc_easy": "validation",
        "gsm8k": "train",
    }


def test_a_run_file_in_a_folder_that_is_not_there(workplace: Path, cli: Cli) -> None:
    found = cli("init", "Qwen2.5-0.5B", "other/own", "--out", "nodir/x.yaml")
    assert found.status == 2
    assert found.err == (
        "evomerge: nodir/x.yaml cannot be written, nodir is not a folder; make it, or choose another --out\n"
    )


def test_every_model_keeps_a_name() -> None:
    sources = ["p/a 2", "q/a", "r/a", "s/a", "/", "...", "t/日本語"]
    assert list(expert_names(sources)) == ["a 2", "a", "a 3", "a 4", "expert", "expert 2", "日本語"]
    assert list(expert_names(sources).values()) == sources
