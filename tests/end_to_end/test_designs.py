"""Searches by every design of draws, with a calibration where it needs one, and on from where they were cut."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import journals
import pytest
from conftest import ROOT, Typed, small_fitness, story

import evomerge
from evomerge.trial import Draw

Cli = Callable[..., Typed]
Write = Callable[..., Path]
CALIBRATION = str(ROOT / "fitness/demo/calibration.npz")
POLICIES: dict[str, dict[str, Any]] = {
    "random": {"kind": "mean"},
    "stratified": {"kind": "mp_irt"},
    "active": {"kind": "aipw", "calibration": CALIBRATION},
    "anchors": {"kind": "weighted"},
    "anchors_irt": {"kind": "gp_irt", "calibration": CALIBRATION},
    "information": {"kind": "p_irt", "calibration": CALIBRATION},
}
BY_CHANCE = ("random", "stratified", "active")


def draws(run: Path) -> list[Draw]:
    """Each draw of a run once, in order."""
    pieces = [piece for pieces in evomerge.load(run).appraiser.ledger.candidates() for piece in pieces[1]]
    found = {p.draw.generation: p.draw for p in pieces if p.draw.generation is not None}
    return [found[generation] for generation in sorted(found)]


@pytest.mark.parametrize("design", POLICIES)
def test_a_search_by_every_design(design: str, cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run, cut = tmp_path / "RUN", tmp_path / "CUT"
    fitness = {**small_fitness(search=24), "estimator": {**POLICIES[design], "design": design, "items": 6}}
    path = run_file(space="per-group", fitness=fitness, budget={"evaluations": 34})
    assert cli("search", path, "--out", run).status == 0
    found = draws(run)
    assert len(found) > 1
    for draw in found:
        assert draw.places is not None
        assert draw.probabilities is not None
        places, chances = draw.places["math_ja"], draw.probabilities["math_ja"]
        assert len(set(places)) == 6
        if design in BY_CHANCE:
            assert max(chances) < 1
            assert draw.masses is None
        else:
            assert draw.masses is not None
            assert sum(draw.masses["math_ja"]) == pytest.approx(1)
    varied = {frozenset(draw.places["math_ja"]) for draw in found if draw.places is not None}
    assert (len(varied) > 1) == (design in BY_CHANCE), "others for every generation, unless they were chosen"
    shutil.copytree(run, cut)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    journals.cut(cut, len(lines) // 2)
    assert cli("resume", cut).status == 0
    assert story(cut) == story(run)
