"""The package as such: what imports what, what a laptop needs, what the wheel carries."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

LIGHT = (
    "cli", "spec", "space", "fitness", "trial", "recipe", "presets", "values", "errors", "events", "store", "schedule",
    "results", "session", "study", "confirm", "estimate", "estimate.published", "estimate.calibrate", "optimize",
    "optimize.build", "optimize.cma", "optimize.nsga2", "optimize.tpe", "optimize.sobol", "report", "assemble",
    "starter", "execute", "watch",
)  # fmt: skip
HEAVY = ("torch", "transformers", "ray", "lm_eval", "scipy.stats")


@pytest.mark.parametrize("module", ["", *LIGHT])
def test_planning_reading_and_plotting_work_on_a_laptop(module: str) -> None:
    name = f"evomerge.{module}" if module else "evomerge"
    code = f"import sys, {name}; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_run_is_read_without_torch(finished: dict[str, Path]) -> None:
    code = (
        "import sys, evomerge; from evomerge.report import write_report; from pathlib import Path;"
        f"run = Path({str(finished['two'])!r}); r = evomerge.load(run); r.to_json(); write_report(r, run / 'x.html');"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    (finished["two"] / "x.html").unlink()


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    """The layers are kept by a tool that would notice: a planted import from below to above breaks a contract."""
    import shutil

    shutil.copytree(ROOT / "evomerge", tmp_path / "evomerge", ignore=shutil.ignore_patterns("models", "__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for module, line in (
        ("space/genes.py", "import evomerge.study"),
        ("estimate/grade.py", "import evomerge.optimize.cma"),
        ("study.py", "import torch"),
        ("materialize/kernels.py", "import plotly"),
        ("helpers.py", "x = 1"),
    ):
        path = tmp_path / "evomerge" / module
        before = path.read_text() if path.exists() else None
        path.write_text(f"{before or ''}\n{line}\n")
        command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert found.returncode != 0, f"{line} in {module} was not noticed"
        path.write_text(before) if before is not None else path.unlink()


def test_the_wheel_carries_presets_and_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 8_000_000
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "evomerge/presets/search_spaces/per-layer.yaml",
        "evomerge/presets/fitness/demo.yaml",
        "evomerge/presets/fitness/demo/math_ja.jsonl",
        "evomerge/presets/fitness/demo/calibration.npz",
        "evomerge/demo/models/base/model.safetensors",
    ):
        assert wanted in names
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = "from evomerge.presets import preset_names as p; print(p('space'), p('fitness'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "."},
    )
    assert "'per-layer'" in found.stdout
    assert "'demo'" in found.stdout


def test_help_teaches() -> None:
    found = subprocess.run([sys.executable, "-m", "evomerge", "--help"], capture_output=True, text=True, check=True)
    for command in (
        "demo",
        "init",
        "plan",
        "search",
        "resume",
        "show",
        "confirm",
        "export",
        "report",
        "merge",
        "score",
        "calibrate",
    ):
        assert f"\n  {command} " in found.stdout
    assert "..." not in found.stdout.partition("Commands:")[2], "a summary is cut"
    assert "Start: `evomerge demo`" in found.stdout
