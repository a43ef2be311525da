"""How well estimators tell what published merges got, from a few items and their parents' answers."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.estimate.designs import Sample, proportional, simple_random, uncertainty
from evomerge.estimate.estimators import aipw, mean
from evomerge.estimate.evidence import Estimate, Evidence
from evomerge.estimate.history import History
from evomerge.estimate.models import parents_pattern

Floats = NDArray[np.float64]
PUBLISHED = Path(__file__).parent / "data/real_merge_contingency_59.json"


def published_pairs() -> list[NDArray[np.int64]]:
    """Counts of each published merge: by who of its parents solves an item (none, other, one, both), by its marks."""
    return [np.asarray(pair["counts"], dtype=np.int64) for pair in json.loads(PUBLISHED.read_text())["pairs"]]


def laid_out(counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Items of a published merge: what its parents got (parents, items) and what it got (items,)."""
    cells = np.repeat(np.arange(8), counts.ravel())
    return np.array([cells // 4, cells // 2 % 2], dtype=np.float64), np.asarray(cells % 2, dtype=np.float64)


def expected(parents: Floats) -> Floats:
    """What merges of these parents (parents, items) are expected to get, nobody having seen one (items,)."""
    nothing = np.empty(0)
    history = History(
        items=parents.shape[1],
        parents=parents,
        genomes=np.empty((0, 0)),
        candidates=nothing.astype(np.int64),
        places=nothing.astype(np.int64),
        marks=nothing,
        ages=nothing,
        unit=True,
    )
    return parents_pattern(history).marks


@dataclass(frozen=True)
class Accuracy:
    """Root mean squared error over merges and draws, and the share of 95 % intervals that hold the truth."""

    rmse: float
    coverage: float


@dataclass
class _Tally:
    squares: list[float]
    covered: list[bool]

    def add(self, found: Estimate, truth: float) -> None:
        self.squares.append((found.value - truth) ** 2)
        self.covered.append(found.low <= truth <= found.high)

    def accuracy(self) -> Accuracy:
        return Accuracy(float(np.sqrt(np.mean(self.squares))), float(np.mean(self.covered)))


def estimate_published(count: int, draws: int, seed: int = 0) -> dict[str, Accuracy]:
    """The mean of random items, and AIPW on items drawn where the parents leave most open, on all published merges."""
    tallies = {name: _Tally([], []) for name in ("random mean", "aipw, active")}
    for place, counts in enumerate(published_pairs()):
        parents, marks = laid_out(counts)
        weights = np.full(len(marks), 1 / len(marks))
        predicted = expected(parents)
        for draw in range(draws):
            rng = np.random.default_rng((seed, place, draw))
            drawn = simple_random(len(marks), count, rng)
            tallies["random mean"].add(mean(_evidence(weights, marks, drawn)), marks.mean())
            drawn = proportional(uncertainty(weights, predicted), count, rng)
            tallies["aipw, active"].add(aipw(_evidence(weights, marks, drawn, predicted)), marks.mean())
    return {name: tally.accuracy() for name, tally in tallies.items()}


def _evidence(weights: Floats, marks: Floats, drawn: Sample, predicted: Floats | None = None) -> Evidence:
    return Evidence(weights, drawn.places, marks[drawn.places], drawn.probabilities, predicted)


def seconds_of_estimates(items: int = 28_659, objectives: int = 5, count: int = 50) -> float:
    """CPU seconds that estimates of one candidate take on benchmarks of so many items each."""
    rng = np.random.default_rng(0)
    weights, predicted = np.full(items, 1 / items), rng.random(items)
    marks = (rng.random(items) < predicted).astype(float)
    drawn = proportional(uncertainty(weights, predicted), count, rng)
    started = time.process_time()
    for _ in range(objectives):
        aipw(_evidence(weights, marks, drawn, predicted))
    return time.process_time() - started
