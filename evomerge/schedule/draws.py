"""The items of every draw: a function of seed and number, the same for all candidates of a generation."""

from typing import Literal, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from evomerge.estimate import Appraiser
from evomerge.estimate.anchors import anchors
from evomerge.estimate.designs import Sample, proportional, simple_random, stratified
from evomerge.fitness import EstimatorSpec
from evomerge.items import TaskItems
from evomerge.trial import Draw

Chosen: TypeAlias = Literal["anchors", "anchors_irt", "information"]
STREAM = 2
"""Tells these random numbers from the optimisers'."""
WHOLE = Draw(pool="search")
DIGITS = 9
"""Of a probability, in the journal."""


class Draws:
    """Draws items by the design of a fitness, in the light of what earlier draws showed."""

    def __init__(self, appraiser: Appraiser, spec: EstimatorSpec, seed: int) -> None:
        self._appraiser = appraiser
        self._spec = spec
        self._seed = seed
        self._drawn: dict[int, Draw] = {}

    def draw(self, generation: int) -> Draw:
        """All items of a draw; where nothing is rotated, those of the first."""
        table = self._appraiser.ledger.table
        if self._spec.drawn(table) == table.count("search") and not self._spec.rungs:
            return WHOLE
        basis = generation if self._spec.rotates else 0
        if basis not in self._drawn:
            self._drawn[basis] = self._new(basis)
        return self._drawn[basis].model_copy(update={"generation": generation})

    def remember(self, draw: Draw) -> None:
        """Keep to a draw that was made before; pieces of one are passed over."""
        if draw.generation is not None and draw.of is None:
            self._drawn.setdefault(draw.generation if self._spec.rotates else 0, draw)

    def _new(self, generation: int) -> Draw:
        samples = {
            key: self._sample(key, task, generation, np.random.default_rng((self._seed, STREAM, generation, place)))
            for place, (key, task) in enumerate(self._appraiser.ledger.table.tasks.items())
        }
        chosen = any(sample.masses is not None for sample in samples.values())
        return Draw(
            pool="search",
            places={key: tuple(map(int, sample.places)) for key, sample in samples.items()},
            probabilities={key: _rounded(sample.probabilities) for key, sample in samples.items()},
            masses={key: _rounded(sample.masses) for key, sample in samples.items()} if chosen else None,
        )

    def _sample(self, key: str, task: TaskItems, generation: int, rng: np.random.Generator) -> Sample:
        items, count = len(task.search.ids), self._spec.drawn_of(task)
        match design := self._spec.chosen_design:
            case "random":
                return simple_random(items, count, rng)
            case "stratified":
                return stratified(task.search.strata or ("",) * items, count, rng)
            case "active":
                return proportional(self._appraiser.sizes(key, generation), count, rng)
            case "anchors" | "anchors_irt" | "information":
                return self._chosen(design, key, count, generation)
            case _:
                assert_never(design)

    def _chosen(self, design: Chosen, key: str, count: int, generation: int) -> Sample:
        """Items that were picked to stand for others; certain, with their masses."""
        appraiser, weights = self._appraiser, self._appraiser.weights(key)
        match design:
            case "anchors":
                places, masses = anchors(appraiser.responses(key, generation), count, weights, self._seed)
            case "anchors_irt":
                items = appraiser.parameters(key)
                features = np.column_stack([items.slopes, items.offsets])
                known = appraiser.calibrated_anchors(key, count)
                places, masses = known or anchors(features, count, weights, self._seed)
            case "information":
                places = np.argsort(-appraiser.information(key))[:count]
                masses = weights[places] / weights[places].sum()
            case _:
                assert_never(design)
        return Sample(places, np.ones(len(places)), masses)


def _rounded(numbers: NDArray[np.float64] | None) -> tuple[float, ...]:
    return () if numbers is None else tuple(round(float(number), DIGITS) for number in numbers)
