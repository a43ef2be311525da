"""`evomerge calibrate`: from a table of marks to a file, or one line that says what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Typed

from evomerge.estimate.calibration import read_calibration

Cli = Callable[..., Typed]


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    """Twenty models on twelve items, better models and harder items last."""
    rng = np.random.default_rng(0)
    chances = 1 / (1 + np.exp(-(np.linspace(-2, 2, 20)[:, None] - np.linspace(-2, 2, 12))))
    marks = (rng.random((20, 12)) < chances).astype(int)
    lines = ["," + ",".join(f"item{i}" for i in range(12))]
    lines += [f"model{i}," + ",".join(map(str, row)) for i, row in enumerate(marks)]
    path = tmp_path / "sums.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["c.npz", "c.json"])
def test_it_fits_and_says_how_well(cli: Cli, responses: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    found = cli("calibrate", responses, "--out", out, "--anchors", 4)
    assert found.status == 0, found.err
    lines = found.out.splitlines()
    assert lines[0] == "sums: 20 models, 12 items, 4 anchors"
    assert lines[1].split() == ["dimensions", "log-loss", "error", "of", "the", "mean"]
    assert any(line.split()[1] == "*" for line in lines[2:-1])
    assert lines[-1] == f"wrote {out}"
    calibration = read_calibration(out)
    assert calibration.tasks == ("sums",) * 12
    assert calibration.parameters.offsets[0] < calibration.parameters.offsets[-1]
    assert (calibration.masses > 0).sum() == 4


def test_several_files_are_several_tasks(cli: Cli, responses: Path, tmp_path: Path) -> None:
    other = tmp_path / "words.csv"
    other.write_text(responses.read_text().replace("item", "word"))
    found = cli("calibrate", responses, other, "--out", tmp_path / "c.npz", "--dimensions", 2)
    assert found.status == 0, found.err
    calibration = read_calibration(tmp_path / "c.npz")
    assert [fit.task for fit in calibration.fits] == ["sums", "words"]
    assert all(fit.dimensions == 2 for fit in calibration.fits)
    assert len(calibration.ids) == 24


def test_force_replaces_a_calibration_only(cli: Cli, responses: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert cli("calibrate", responses, "--out", out).status == 0
    before = out.read_bytes()
    refused = cli("calibrate", responses, "--out", out, "--seed", 5)
    assert refused.status == 2
    assert "--force" in refused.err
    assert out.read_bytes() == before
    assert cli("calibrate", responses, "--out", out, "--force").status == 0
    out.write_text("{}")
    refused = cli("calibrate", responses, "--out", out, "--force")
    assert refused.status == 2
    assert "is not a calibration" in refused.err
    assert out.read_text() == "{}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("item3", "item2", 1), ["item 'item2' occurs 2 times"]),
        (lambda t: t.replace("model3,", "model2,", 1), ["model 'model2' occurs 2 times"]),
        (lambda t: t.replace("model4,1", "model4,1.4", 1), ["row 'model4'", "column 'item0'", "1.4", "0 to 1"]),
        (lambda t: t.replace("model4,1", "model4,-1", 1), ["row 'model4'", "column 'item0'", "-1"]),
        (lambda t: t.replace("model4,1", "model4,yes", 1), ["row 'model4'", "column 'item0'", "'yes'", "not a number"]),
        (lambda t: t.replace("model4,1", "model4,nan", 1), ["row 'model4'", "'nan'", "not a number"]),
        (lambda t: t.replace("model4,1", "model4,1,1", 1), ["row 'model4' has 14 cells, the first row 13"]),
        (lambda t: t.splitlines()[0], ["holds no marks"]),
        (lambda t: "", ["is empty"]),
        (lambda t: "\n".join(t.splitlines()[:4]), ["3 models", "at least 5"]),
    ],
)
def test_bad_responses(
    cli: Cli, responses: Path, tmp_path: Path, change: Callable[[str], str], words: list[str]
) -> None:
    text = responses.read_text()
    lines = text.splitlines()
    lines[5] = "model4,1" + lines[5][len("model4,1") :]
    responses.write_text(change("\n".join(lines)))
    refused(cli("calibrate", responses, "--out", tmp_path / "c.npz"), str(responses.stem), *words)
    assert not (tmp_path / "c.npz").exists()


def refused(found: Typed, *words: str) -> None:
    assert found.status == 2, found
    complaint = [line for line in found.err.splitlines() if line.startswith("evomerge: ")]
    assert len(complaint) == 1, found.err
    assert "Traceback" not in found.err
    for word in words:
        assert word in complaint[0], f"{word!r} is not in {complaint[0]!r}"


def test_bad_options(cli: Cli, responses: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.npz"
    for arguments, words in (
        ((responses, "--out", tmp_path / "c.pickle"), ["c.pickle", ".npz or .json"]),
        ((responses, "--out", tmp_path / "none/c.npz"), ["--out", "not a folder"]),
        ((responses, "--out", out, "--dimensions", "many"), ["--dimensions", "'many'", "auto"]),
        ((responses, "--out", out, "--dimensions", "0"), ["--dimensions", "'0'"]),
        ((responses, "--out", out, "--dimensions", "9"), ["9 dimensions", "fewer"]),
        ((responses, responses, "--out", out), ["two are called the same", "sums"]),
        ((tmp_path / "sums.txt", "--out", out), ["sums.txt", ".csv, .npz, .parquet"]),
        ((tmp_path / "missing.csv", "--out", out), ["missing.csv", "No such file"]),
        ((tmp_path / "missing.npz", "--out", out), ["missing.npz", "No such file"]),
        ((tmp_path / "missing.parquet", "--out", out), ["missing.parquet", "No such file"]),
    ):
        refused(cli("calibrate", *arguments), *words)
    assert not out.exists()
    assert cli("calibrate", responses, "--out", out, "--anchors", 0).status == 2
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    refused(cli("calibrate", folder, "--out", out), "folder.csv", "cannot be read")


def test_the_demos_calibration_is_of_its_documents() -> None:
    from evomerge.score import open_banks
    from evomerge.spec import load_fitness

    calibration = read_calibration(ROOT / "fitness/demo/calibration.npz")
    for task, bank in open_banks(load_fitness("demo", Path.cwd())).items():
        for pool in (bank.table.search.ids, bank.table.confirm.ids):
            assert len(calibration.parameters_for(pool).offsets) == len(pool)
        fit = calibration.fit_for(bank.table.search.ids)
        assert fit.task == task
        assert fit.loss < fit.baseline
