"""Calibrations: made from panels, kept in files, read by item ids, refused by name."""

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scipy import special

from evomerge.errors import SpecError
from evomerge.estimate.calibrate import Fitting, calibrate
from evomerge.estimate.calibration import Calibration, TaskFit, read_calibration, write_calibration
from evomerge.estimate.evidence import Evidence
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.panel import Panel
from evomerge.estimate.published import gp_irt


def panel(models: int, items: int, dims: int = 1, seed: int = 0, name: str = "i") -> Panel:
    rng = np.random.default_rng(seed)
    slopes = rng.normal(1.5, 0.7, (items, dims)) * np.array([1, -1])[rng.integers(0, 2, (items, dims)) * (dims > 1)]
    chances = special.expit(rng.normal(size=(models, dims)) @ slopes.T - rng.normal(0, 1, items))
    marks = (rng.random(chances.shape) < chances).astype(float)
    return Panel(tuple(f"m{i}" for i in range(models)), tuple(f"{name}{i}" for i in range(items)), marks)


@pytest.fixture(scope="module")
def two() -> Calibration:
    """A task of two dimensions, and one of one."""
    parts = [
        calibrate(panel(60, 40, 2), Fitting(dimensions=2, anchors=10), task="a"),
        calibrate(panel(60, 20, 1, seed=1, name="j"), Fitting(dimensions=1, anchors=5), task="b"),
    ]
    return Calibration.joined(parts)


@pytest.mark.parametrize("name", ["c.npz", "c.json"])
def test_a_file_gives_back_what_was_written(two: Calibration, tmp_path: Path, name: str) -> None:
    write_calibration(tmp_path / name, two)
    back = read_calibration(tmp_path / name)
    assert (back.ids, back.tasks, back.fits) == (two.ids, two.tasks, two.fits)
    assert (back.parameters.slopes == two.parameters.slopes).all()
    assert (back.parameters.offsets == two.parameters.offsets).all()
    assert (back.masses == two.masses).all()
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing temporary is left"


def test_parameters_are_found_by_item(two: Calibration) -> None:
    found = two.parameters_for(["j3", "j0"])
    assert found.slopes.shape == (2, 1), "dimensions of other tasks are none of this one's"
    assert found.offsets == pytest.approx(two.parameters.offsets[[43, 40]])
    assert two.parameters_for(["i5"]).slopes.shape == (1, 2)
    with pytest.raises(SpecError, match="2 of 3 items are not in the calibration, which has 60"):
        two.parameters_for(["i1", "k1", "k2"])
    assert two.fit_for(["j1"]).task == "b"


def test_anchors_are_found_by_item(two: Calibration) -> None:
    ids = list(reversed(two.ids[:40]))
    places, masses = two.anchors_for(ids)
    assert len(places) == 10
    assert masses.sum() == pytest.approx(1)
    assert {ids[place] for place in places} == {two.ids[place] for place in np.flatnonzero(two.masses[:40])}
    with pytest.raises(SpecError, match="of the calibration's 10 anchors, [0-9] are among the 5 items"):
        two.anchors_for(ids[:5])


def test_the_same_item_in_two_tasks_is_refused(two: Calibration) -> None:
    with pytest.raises(SpecError, match="60 items are in two tasks"):
        Calibration.joined([two, two])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.update(format="evomerge calibration 2"), "evomerge calibration 2"),
        (lambda p: p.pop("slopes"), "no 'slopes'"),
        (lambda p: p["offsets"].pop(), "not of the same"),
        (lambda p: p["ids"].__setitem__(1, p["ids"][0]), "not of the same distinct items"),
        (lambda p: p["masses"].__setitem__(0, float("nan")), "not a finite number"),
        (lambda p: p.update(offsets="much"), "is not a calibration"),
        (lambda p: p.update(fits=['{"task": "a"}']), "fits"),
        (lambda p: p.update(tasks=["c"] * 60), "not of its tasks"),
    ],
)
def test_damage_is_named(two: Calibration, tmp_path: Path, damage: object, words: str) -> None:
    path = tmp_path / "c.json"
    write_calibration(path, two)
    plain = json.loads(path.read_text())
    damage(plain)  # type: ignore[operator]
    path.write_text(json.dumps(plain))
    with pytest.raises(SpecError, match=words) as found:
        read_calibration(path)
    assert str(path) in str(found.value)
    assert "evomerge calibrate" in str(found.value)


def test_what_is_no_calibration_is_refused(two: Calibration, tmp_path: Path) -> None:
    for name, content in (("a.npz", b"PK no archive"), ("b.json", b"[1, 2]"), ("c.json", b"{"), ("d.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpecError, match="is not a calibration|is not valid JSON"):
            read_calibration(tmp_path / name)
    np.savez(tmp_path / "pickled.npz", format=np.array([{}], dtype=object))
    with pytest.raises(SpecError, match="is not a calibration|is not valid JSON"):
        read_calibration(tmp_path / "pickled.npz")
    with pytest.raises(SpecError, match="cannot be read"):
        read_calibration(tmp_path / "missing.npz")
    for path in (tmp_path / "c.pkl", tmp_path / "c"):
        with pytest.raises(SpecError, match=r"\.npz or \.json"):
            write_calibration(path, two)
    with pytest.raises(SpecError, match="cannot be written"):
        write_calibration(tmp_path / "nowhere/c.npz", two)


def test_dimensions_are_those_that_predict() -> None:
    assert calibrate(panel(120, 60, 1)).fits[0].dimensions == 1
    fit = calibrate(panel(150, 80, 2)).fits[0]
    assert fit.dimensions == 2
    assert fit.loss < fit.baseline - 0.03
    assert [trial.dimensions for trial in fit.tried][:2] == [1, 2]


def test_bias_is_what_predictions_of_the_mean_were_off() -> None:
    fit = calibrate(panel(200, 100, 1), Fitting(dimensions=1)).fits[0]
    assert 0.01 < fit.bias < 0.06, "of 50 odd items from 50 even ones"
    assert 0.15 < fit.variance < 0.25
    assert fit.share(10, anchored=False) < fit.share(10, anchored=True) < fit.share(100, anchored=True) < 1


def test_share_is_the_published_one() -> None:
    fit = TaskFit(task="", models=9, items=9, dimensions=1, loss=0.5, baseline=0.6, bias=0.02, variance=0.22)
    assert fit.share(100, anchored=True) == pytest.approx(0.0004 / (0.0004 + 0.22 / 400))
    assert fit.share(100, anchored=False) == pytest.approx(0.0004 / (0.0004 + 0.22 / 100))
    assert fit.model_copy(update={"bias": 0.0, "variance": 0.0}).share(3, anchored=True) == 0


def test_the_same_seed_gives_the_same_calibration() -> None:
    one, other = (calibrate(panel(30, 25, 1), Fitting(anchors=6, seed=3)) for _ in range(2))
    assert (one.masses == other.masses).all()
    assert (one.parameters.slopes == other.parameters.slopes).all()


def test_calibrated_anchors_estimate_new_models_better_than_their_mean() -> None:
    every = panel(160, 150, 1, seed=5)
    known = Panel(every.models[:120], every.items, every.marks[:120])
    calibration = calibrate(known, Fitting(dimensions=1, anchors=20))
    items, (places, masses) = calibration.parameters_for(every.items), calibration.anchors_for(every.items)
    fit = calibration.fits[0]
    errors, raw = [], []
    for marks in every.marks[120:]:
        evidence = Evidence(np.full(150, 1 / 150), places, marks[places], np.ones(20), masses=masses)
        share = fit.share(20, anchored=True)
        errors.append(gp_irt(evidence, items, raw=share, prior=1.0, bias=fit.bias).value - marks.mean())
        raw.append(masses @ marks[places] - marks.mean())
    assert np.abs(errors).mean() < 0.85 * np.abs(raw).mean()


def test_odd_panels() -> None:
    small = panel(5, 3)
    assert calibrate(small).fits[0].models == 5
    constant = Panel(small.models, small.items, np.ones((5, 3)))
    assert np.isfinite(calibrate(constant).parameters.slopes).all()
    gaps = panel(12, 10)
    gaps.marks[::2, ::3] = np.nan
    gaps.marks[3] = np.nan
    gaps.marks[5, 1:] = np.nan
    found = calibrate(gaps)
    assert found.fits[0].models == 11, "one has no marks at all"
    assert np.isfinite(found.parameters.offsets).all()


def test_too_little_is_said() -> None:
    with pytest.raises(SpecError, match="4 models on 10 items.*at least 5 models.*3 items"):
        calibrate(panel(4, 10))
    with pytest.raises(SpecError, match="marks of 10 models on 2 items"):
        calibrate(panel(10, 2))
    empty = panel(10, 5)
    empty.marks[:, 2] = np.nan
    with pytest.raises(SpecError, match="b: 1 items have no marks, 'i2' say"):
        calibrate(empty, task="b")
    with pytest.raises(SpecError, match="7 dimensions take more than 7 models.*there are 8 and 10"):
        calibrate(panel(10, 10), Fitting(dimensions=7))


def test_lines_tell_what_was_chosen(two: Calibration) -> None:
    lines = two.lines()
    assert lines[0] == "a: 60 models, 40 items, 10 anchors"
    assert any(line.split()[:2] == ["2", "*"] for line in lines)
    assert sum(line.split()[0] == "none" for line in lines) == 2


def test_zero_slopes_leave_one_dimension() -> None:
    flat = ItemParameters(np.zeros((2, 3)), np.ones(2))
    fit = TaskFit(task="", models=9, items=2, dimensions=3, loss=0.5, baseline=0.6, bias=0.02, variance=0.22)
    assert Calibration(("x", "y"), ("", ""), flat, np.ones(2) / 2, (fit,)).parameters_for(["y"]).slopes.shape == (1, 1)


def test_a_damaged_calibration_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    raw, rng, path = (ROOT / "fitness/demo/calibration.npz").read_bytes(), random.Random(1), tmp_path / "c.npz"
    for _ in range(120):
        start, stop = sorted(rng.randrange(len(raw)) for _ in range(2))
        flipped = raw[:start] + bytes([rng.randrange(256)]) + raw[start + 1 :]
        path.write_bytes(rng.choice([flipped, flipped, raw[:start] + raw[stop:], raw[:start]]))
        with contextlib.suppress(SpecError):
            read_calibration(path)
