"""What candidates are worth, by the estimator of a fitness, from the marks in a ledger."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from evomerge.errors import SpecError
from evomerge.estimate.calibration import Calibration
from evomerge.estimate.evidence import Estimate, Floats, Ints, averaged, exact
from evomerge.estimate.expect import Expectation
from evomerge.estimate.grade import Grader, Pair
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.judge import Judge
from evomerge.estimate.ledger import Ledger, Piece
from evomerge.estimate.loss import LOSS
from evomerge.estimate.mixture import parent_abilities
from evomerge.estimate.smooth import shrunken
from evomerge.fitness import EstimatorKind, by_choice, plain_kind
from evomerge.trial import Observation
from evomerge.values import Genome

FEWEST = 8
"""Candidates among which neighbours tell anything."""


class Appraiser:
    """Turns a ledger, which others fill, into estimates. Bound to a fitness and its items.

    What it says of a draw rests on that draw, earlier ones and the parents, so it says the same whenever it is asked.
    """

    def __init__(
        self,
        grader: Grader,
        ledger: Ledger,
        calibration: Calibration | None = None,
        kind: EstimatorKind | None = None,
        losses: Collection[str] = (),
    ) -> None:
        """`kind` is another estimator than the fitness names; the objectives in `losses` are told by their loss."""
        self.grader = grader
        self.losses = frozenset(losses)
        self.ledger = ledger
        self.kind: EstimatorKind = kind or grader.fitness.estimator.kind
        self._calibration = calibration
        self._expected: dict[tuple[str, str], Expectation] = {}
        self._judges: dict[tuple[str, str | None], list[Judge]] = {}
        self._kept: dict[tuple[int, int], dict[str, Estimate]] = {}
        self._pool_errors: dict[tuple[int, int, str], float] = {}
        self._utilities: dict[tuple[int, int], tuple[float, ...]] = {}

    def values(self, number: int) -> dict[str, Estimate] | None:
        """Estimates of all objectives on the search pool, in the metrics' own units; None if there are no marks.

        Raises:
            SpecError: the estimator needs marks in [0, 1], and those of a metric are not.
        """
        pieces = marked(self.ledger.of(number))
        return self._values(pieces) if pieces else None

    def utilities(self, pieces: Sequence[Piece]) -> tuple[float, ...]:
        """What these pieces of a candidate are worth: values as utilities, higher is better, with tie breaks.

        An objective that is told by its loss is worth minus that.
        """
        key = pieces[0].number, len(pieces)
        if key not in self._utilities:
            self._utilities[key] = tuple(self._utility(pieces, label) for label in self.grader.fitness.objectives)
        return self._utilities[key]

    def _utility(self, pieces: Sequence[Piece], label: str) -> float:
        if label in self.losses:
            return -self._loss(pieces, label).value
        return self.grader.utility(label, self._values(pieces)[label].value) + self._tie_break(pieces, label)

    def _loss(self, pieces: Sequence[Piece], label: str) -> Estimate:
        return _mean([judge.estimate(pieces) for judge in self._judges_of(label, LOSS)])

    def observe(self, numbers: Sequence[int]) -> list[Observation]:
        """What an optimiser is told of candidates; the errors are those of the pool's estimates.

        With one objective, whoever was dropped at a rung is told to be no better than those who went on from it: of
        few items, somebody is always lucky.
        """
        found = [self._observation(number) for number in numbers]
        if len(self.grader.fitness.objectives) > 1 or not self.grader.fitness.estimator.rungs:
            return found
        return [self._no_better(each, found) for each in found]

    def reported(self, number: int) -> dict[str, Pair] | None:
        """Values with errors that are about the benchmark: they include that the pool is a sample of its items."""
        found = self.values(number)
        pieces = marked(self.ledger.of(number))
        if found is None:
            return None
        return {label: self._about_benchmark(pieces, label, each) for label, each in found.items()}

    def shrunken(self, genomes: Mapping[int, Genome]) -> dict[int, dict[str, Pair]]:
        """Values of all candidates of these genomes that have any, shrunk to their neighbours'; as `reported`."""
        found = {number: values for number in genomes if (values := self.values(number)) is not None}
        if len(found) < FEWEST or not all(map(len, genomes.values())):
            return {}
        points = np.array([genomes[number] for number in found])
        rows: dict[int, dict[str, Pair]] = {number: {} for number in found}
        for label in self.grader.fitness.objectives:
            if label in self.grader.costs:
                rows = {number: {**row, label: (found[number][label].value, 0.0)} for number, row in rows.items()}
                continue
            sign = self.grader.sign(label)  # The best count, where there are too many.
            known, errors = _columns([values[label] for values in found.values()])
            means, errors = shrunken(points, sign * known, errors)
            for number, mean, error in zip(found, sign * means, errors, strict=True):
                estimate = replace(found[number][label], value=float(mean), error=float(error))
                rows[number][label] = self._about_benchmark(marked(self.ledger.of(number)), label, estimate)
        return rows

    def difference(self, pieces: Sequence[Piece], others: Sequence[Piece], label: str) -> Estimate:
        """One candidate minus another in an objective, paired on common items."""
        if label in self.grader.costs:
            return exact(self._cost(pieces, label) - self._cost(others, label))
        return _mean([judge.difference(pieces, others) for judge in self._judges_of(label)])

    def sizes(self, key: str, generation: int) -> Floats:
        """How much there is to learn from every item of a task before a draw, over what is told of it (items,)."""
        metrics = self._metrics(key, told=True)
        found = [self.expectation(key, metric).sizes(generation, self.weights(key)) for metric in metrics]
        return np.asarray(sum(sizes / sizes.sum() for sizes in found))

    def responses(self, key: str, generation: int) -> Floats:
        """What parents got on every item, and what candidates are expected to get, before a draw (items, responses)."""
        columns = []
        for metric in self._metrics(key):
            expectation = self.expectation(key, metric)
            columns += [*self.ledger.parents_marks(key, metric), expectation.siblings(generation)]
        return np.column_stack(columns)

    def parameters(self, key: str) -> ItemParameters:
        """The calibrated parameters of a task's items."""
        items = self.expectation(key, self._metrics(key)[0]).items
        assert items is not None, "the spec sees to it that such designs have a calibration"
        return items

    def calibrated_anchors(self, key: str, count: int) -> tuple[Ints, Floats] | None:
        """Places and masses of a calibration's anchors, if there are as many and all are among a task's items."""
        if self._calibration is None:
            return None
        try:
            places, masses = self._calibration.anchors_for(self.ledger.table.tasks[key].search.ids)
        except SpecError:
            return None
        return (places, masses) if len(places) == count else None

    def information(self, key: str) -> Floats:
        """What every item tells of an ability like the parents' (items,): Fisher information, over all dimensions."""
        items, parents = self.parameters(key), self.ledger.parents_marks(key, self._metrics(key)[0])
        at = parent_abilities(items, parents).mean(axis=0) if parents.size else np.zeros(items.slopes.shape[1])
        chances = items.probabilities(at)
        return np.asarray((items.slopes**2).sum(axis=1) * chances * (1 - chances))

    def weights(self, key: str) -> Floats:
        """What every search item of a task counts (items,), summing to 1."""
        return self.ledger.table.tasks[key].search.shares()

    def _metrics(self, key: str, *, told: bool = False) -> list[str]:
        """The metrics of a task that objectives are about; with `told` their loss, where that is what is told."""
        fitness = self.grader.fitness
        labels = [label for label in fitness.objectives if key in fitness.keys(label)]
        named = {label: self.grader.metric_name(key, fitness.objectives[label].metric) for label in labels}
        return list(dict.fromkeys(LOSS if told and label in self.losses else name for label, name in named.items()))

    def expectation(self, key: str, metric: str) -> Expectation:
        """The response models of a metric."""
        if (key, metric) not in self._expected:
            self._expected[key, metric] = Expectation(
                self.ledger,
                key,
                metric,
                calibration=self._calibration,
                rotates=self.grader.fitness.estimator.rotates,
            )
        return self._expected[key, metric]

    def _observation(self, number: int) -> Observation:
        found = self.values(number)
        if found is None:
            return Observation(number=number, utilities=None)
        pieces = marked(self.ledger.of(number))
        told = [self._loss(pieces, label) if label in self.losses else each for label, each in found.items()]
        utilities = self.utilities(pieces)
        return Observation(number=number, utilities=utilities, errors=tuple(each.error for each in told))

    def _reached(self, observation: Observation) -> tuple[int | None, int]:
        """A candidate's first draw, and how many rungs of it have marks."""
        pieces = marked(self.ledger.of(observation.number)) if observation.number is not None else []
        draw = pieces[0].draw.generation if pieces else None
        return draw, sum(piece.draw.generation == draw and not piece.again for piece in pieces)

    def _no_better(self, observation: Observation, others: Sequence[Observation]) -> Observation:
        """An observation, cut back to what the worst of those who came further in the same draw is worth."""
        draw, rung = self._reached(observation)
        reached = [(self._reached(other), other.utilities) for other in others if other.utilities is not None]
        above = [utilities for (where, far), utilities in reached if where == draw and far > rung]
        if observation.utilities is None or not above:
            return observation
        return observation.model_copy(update={"utilities": min(observation.utilities, *above)})

    def _values(self, pieces: Sequence[Piece]) -> dict[str, Estimate]:
        key = pieces[0].number, len(pieces)  # Pieces are only ever added, and left out from the end.
        if key not in self._kept:
            self._kept[key] = {label: self._estimate(pieces, label) for label in self.grader.fitness.objectives}
        return self._kept[key]

    def _estimate(self, pieces: Sequence[Piece], label: str) -> Estimate:
        """One objective: a cost needs no estimating."""
        if label in self.grader.costs:
            return exact(self._cost(pieces, label))
        return _mean([judge.estimate(pieces) for judge in self._judges_of(label)])

    def _cost(self, pieces: Sequence[Piece], label: str) -> float:
        marks = pieces[0].marks
        assert marks is not None, "estimates are asked for of pieces with marks"
        return self.grader.cost(marks, label)

    def _about_benchmark(self, pieces: Sequence[Piece], label: str, estimate: Estimate) -> Pair:
        """What is reported; a mean of marks in [0, 1] lies there too, whatever corrections make of it."""
        if label in self.grader.costs:
            return estimate.value, 0.0
        key, judges = (pieces[0].number, len(pieces), label), self._judges_of(label)
        if key not in self._pool_errors:
            errors = [judge.pool_error(pieces, judge.estimate(pieces).value) for judge in judges]
            self._pool_errors[key] = math.hypot(*errors) / len(judges)
        within = all(judge.within_unit(pieces) for judge in judges)
        value = min(max(estimate.value, 0.0), 1.0) if within else estimate.value
        return value, math.hypot(estimate.error, self._pool_errors[key])

    def _tie_break(self, pieces: Sequence[Piece], label: str) -> float:
        tie_break = self.grader.fitness.objectives[label].tie_break
        if tie_break is None:
            return 0.0
        judges = self._judges_of(label, tie_break.metric)
        signed = [
            self.grader.metric_sign(j.expectation.key, tie_break.metric) * j.estimate(pieces).value for j in judges
        ]
        return tie_break.weight * sum(signed) / len(signed)

    def _judges_of(self, label: str, other: str | None = None) -> list[Judge]:
        """Of every task of an objective, its metric or another one (of a tie break, the loss) of whatever range."""
        if (label, other) not in self._judges:
            chosen = by_choice(self.grader.fitness.estimator.chosen_design)
            kind = self.kind if other is None else plain_kind(self.kind, chosen=chosen)
            metric = other or self.grader.fitness.objectives[label].metric
            keys = self.grader.fitness.keys(label)
            names = [(key, LOSS if metric == LOSS else self.grader.metric_name(key, metric)) for key in keys]
            self._judges[label, other] = [Judge(self.expectation(*name), kind) for name in names]
        return self._judges[label, other]


def _columns(estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    return np.array([each.value for each in estimates]), np.array([each.error for each in estimates])


def marked(pieces: Sequence[Piece]) -> list[Piece]:
    """Those that did not fail."""
    return [piece for piece in pieces if piece.marks is not None]


def _mean(parts: Sequence[Estimate]) -> Estimate:
    """The mean over an objective's tasks."""
    return averaged(parts, [1 / len(parts)] * len(parts))
