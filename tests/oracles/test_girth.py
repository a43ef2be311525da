"""Abilities and items' parameters against girth, an independent implementation."""

import girth
import numpy as np
import pytest

from evomerge.estimate.evidence import Floats
from evomerge.estimate.fit import fit_items
from evomerge.estimate.irt import ItemParameters, abilities

FLATTEST = 0.21
"""girth never goes below a slope of .2, where difficulties have no meaning: such items are not compared."""


def simulated(seed: int) -> tuple[Floats, Floats, Floats]:
    """Discriminations, difficulties, and marks of 400 models on 60 items."""
    rng = np.random.default_rng(seed)
    steep, hard, skill = np.clip(rng.lognormal(0, 0.4, 60), 0.3, 3.5), rng.normal(size=60), rng.normal(size=400)
    chances = 1 / (1 + np.exp(-(steep * (skill[:, None] - hard))))
    return steep, hard, (rng.random((400, 60)) < chances).astype(float)


def test_abilities() -> None:
    steep, hard, marks = simulated(1)
    expected = girth.ability_map(marks.T.astype(int), hard, steep)
    who, places = np.nonzero(marks >= 0)
    items = ItemParameters(steep[:, None], steep * hard)
    found = abilities(items, who, places, marks.ravel(), count=400, prior=1.0)
    assert found.theta[:, 0] == pytest.approx(expected, abs=1e-5)


def test_items() -> None:
    """As near the truth as marginal maximum likelihood without a prior, over three panels."""
    errors = []
    for seed in range(3):
        steep, hard, marks = simulated(seed)
        theirs, ours = girth.twopl_mml(marks.T.astype(int)), fit_items(marks, 1)
        slopes, compared = ours.slopes[:, 0], theirs["Discrimination"] > FLATTEST
        assert compared.sum() >= 59
        all_errors = [
            slopes - steep,
            theirs["Discrimination"] - steep,
            ours.offsets / slopes - hard,
            theirs["Difficulty"] - hard,
        ]
        errors.append(np.array(all_errors)[:, compared])
    ours_slope, their_slope, ours_place, their_place = np.sqrt((np.hstack(errors) ** 2).mean(axis=1))
    assert ours_slope <= 1.05 * their_slope
    assert ours_place <= 1.05 * their_place
