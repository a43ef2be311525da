"""How well what an optimiser is told ranks the candidates of a generation: the same ones, told in every way.

Models are simulated: the score of every option is a smooth random function of the genes, and the key is what one hidden
genome answers, as in planted zoos of tiny models. A search on all items says which candidates there are; they are then
proposed again by a script, put to draws of 40 of 200 items, and told by each estimator, in the metric or by the loss.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from measure import table
from numpy.typing import NDArray
from simulated import GROUPS, Floats, Plan, begin, go_on, parts, simulator, task_items

from evomerge.execute import InlineExecutor
from evomerge.fitness import EstimatorSpec
from evomerge.items import TaskItems
from evomerge.session import Session
from evomerge.spec import Budget, CmaSpec, Yardstick
from evomerge.study import Study
from evomerge.trial import Observation
from evomerge.values import Genome

SEARCH, CONFIRM, OPTIONS, WAVES = 200, 600, 4, 256
SMOOTHNESS = 1.4
"""How far, in genes, the answers of two models are alike: uniform merges get .4 to .7, as in planted zoos."""
GENERATION = 8
EVERY = EstimatorSpec(kind="mean", items="all")
WAYS: Mapping[str, tuple[EstimatorSpec, Yardstick]] = {
    "mean, rotating": (EstimatorSpec(kind="mean"), "metric"),
    "aipw, random": (EstimatorSpec(design="random"), "metric"),
    "aipw, active (default)": (EstimatorSpec(), "metric"),
    "difference, active": (EstimatorSpec(kind="difference"), "metric"),
    "mean, all items": (EVERY, "metric"),
    "mean, rotating, by loss": (EstimatorSpec(kind="mean"), "loss"),
    "aipw, active, by loss (default)": (EstimatorSpec(), "loss"),
    "mean, all items, by loss": (EVERY, "loss"),
}


@dataclass(frozen=True)
class Planted:
    """Items whose options have sums of waves over the genes for scores; what a hidden genome chooses is right."""

    seed: int

    @cached_property
    def _waves(self) -> tuple[Floats, Floats, Floats]:
        """Directions (waves, genes), phases (waves,), amplitudes, the right option's first (items, options, waves)."""
        rng = np.random.default_rng((self.seed, 17))
        directions = rng.normal(size=(WAVES, GROUPS)) / SMOOTHNESS * 1.5
        phases, hidden = rng.uniform(0, 2 * np.pi, WAVES), rng.uniform(0.05, 0.95, GROUPS)
        sizes = rng.gamma(2.0, 1.0, (SEARCH + CONFIRM, 1, 1)) * np.sqrt(2 / WAVES)
        heights = rng.normal(size=(SEARCH + CONFIRM, OPTIONS, WAVES)) * sizes
        right = (heights @ np.cos(directions @ hidden + phases)).argmax(axis=1)
        order = (right[:, None] + np.arange(OPTIONS)) % OPTIONS
        return directions, phases, np.take_along_axis(heights, order[:, :, None], axis=1)

    def scores_of(self, genome: Genome) -> Floats:
        """Log-likelihoods of every item's options, the right one first (items, options)."""
        directions, phases, heights = self._waves
        return np.asarray(heights @ np.cos(directions @ np.asarray(genome) + phases))

    def marks(self, genome: Genome) -> Floats:
        """The mark of every item (items,)."""
        return np.asarray(self.scores_of(genome).argmax(axis=1) == 0, dtype=np.float64)

    @cached_property
    def pools(self) -> Mapping[str, NDArray[np.int64]]:
        """Places of the items of each pool."""
        return {"search": np.arange(SEARCH), "confirm": np.arange(SEARCH, SEARCH + CONFIRM)}

    def items(self) -> TaskItems:
        """The pools as a run knows them."""
        return task_items(self.pools)


class Scripted:
    """Asks for given genomes, a generation at a time, and keeps what it is first told of each."""

    generation = GENERATION

    def __init__(self, genomes: Sequence[Genome]) -> None:
        self._genomes = list(genomes)
        self._open = 0
        self.told: dict[int, tuple[Genome, float]] = {}

    def ask(self, count: int) -> list[Genome]:  # noqa: ARG002  The protocol's.
        """The next genome, unless the generation is full."""
        if not self._genomes or self._open == GENERATION:
            return []
        self._open += 1
        return [self._genomes.pop(0)]

    def tell(self, observations: Sequence[Observation]) -> None:
        """Remember, and go on."""
        self._open = 0
        for each in observations:
            assert each.number is not None and each.genome is not None and each.utilities is not None
            self.told.setdefault(each.number, (each.genome, each.utilities[0]))

    def recommend(self) -> list[Genome]:
        """Nothing."""
        return []


def found_by_all(world: Planted, evaluations: int) -> list[Genome]:
    """The genomes of a search on all items, in their order."""
    plan = Plan(EVERY, Budget(evaluations=evaluations), world.seed, CmaSpec(population=GENERATION))
    with tempfile.TemporaryDirectory() as temporary:
        found = go_on({"task": world}, begin({"task": world}, plan, Path(temporary) / "run"))
        asked = [each for each in found.state.candidates.values() if each.origin in ("prior", "search")]
        return [each.genome for each in asked if each.genome is not None]


def told(world: Planted, genomes: Sequence[Genome], way: tuple[EstimatorSpec, Yardstick]) -> list[tuple[Genome, float]]:
    """What is told of them, candidate by candidate."""
    estimator, yardstick = way
    plan = Plan(estimator, Budget(evaluations=len(genomes)), world.seed, CmaSpec(told=yardstick))
    script = Scripted(genomes)
    with tempfile.TemporaryDirectory() as temporary:
        store = begin({"task": world}, plan, Path(temporary) / "run")
        session = Session(store, InlineExecutor(simulator({"task": world}, store)))
        Study(session, replace(parts(session), optimizer=lambda _: script)).run()
        store.close()
    return [script.told[number] for number in sorted(script.told)]


def correlations(world: Planted, rows: Sequence[tuple[Genome, float]]) -> Iterator[float]:
    """Of what is told with the accuracy over all items, within each generation of those that differ in both."""
    truths = [float(world.marks(genome).mean()) for genome, _ in rows]
    for start in range(GENERATION, len(rows) - GENERATION + 1, GENERATION):
        utilities = [utility for _, utility in rows[start : start + GENERATION]]
        each = np.array([utilities, truths[start : start + GENERATION]])
        if each.std(axis=1).min() > 0:
            yield float(np.corrcoef(each)[0, 1])


def bench_ranking(seeds: int = 6, evaluations: int = 120) -> None:
    """Every way in the same planted worlds, and how it differs from the first."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        world = Planted(seed)
        genomes = found_by_all(world, evaluations)
        for name, way in WAYS.items():
            found[name].append(float(np.mean(list(correlations(world, told(world, genomes, way))))))
    first = np.array(next(iter(found.values())))
    rows: list[Sequence[object]] = [("", "correlation", "minus the first", "se")]
    for name, each in found.items():
        gap = np.array(each) - first
        rows.append((name, float(np.mean(each)), float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(seeds))))
    table(f"ranking: what is told and the truth, within a generation, {seeds} planted worlds", rows)
