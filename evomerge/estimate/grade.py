"""Means of marks with standard errors clustered by item group, objective by objective."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.fitness import Fitness, ItemTable, Objective, Pool
from evomerge.trial import Draw, Evaluation, Failure, Marks, Observation

Pair: TypeAlias = tuple[float, float]
"""A value and its standard error."""
SEARCH = Draw(pool="search")


def mean_and_error(
    values: NDArray[np.float64], clusters: Sequence[str], weights: Sequence[float] | NDArray[np.float64] = ()
) -> Pair:
    """Mean of `values` (items,) and its standard error, items of one cluster counted as dependent.

    `weights` (items,) may have any sum; left out, they are equal. With `w_i` their shares, the error is the
    cluster-robust one, `sqrt(G / (G - 1) * sum_g (sum_{i in g} w_i (v_i - mean))^2)`; with equal weights and every
    item a cluster of its own it is the usual `sd / sqrt(n)`. Of a single cluster nothing is known: 0.5.
    """
    relative = np.asarray(weights) / np.mean(weights) if len(weights) else np.ones(len(values))
    mean = float((relative * values).mean())
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    groups = int(index.max()) + 1
    if groups < 2:
        return mean, 0.5
    sums = np.bincount(index, weights=relative * (values - mean))
    return mean, float(math.sqrt(groups / (groups - 1) * float(sums @ sums)) / len(values))


class Grader:
    """Reads marks as objectives: each a mean over its tasks of the weighted mean over the drawn items."""

    def __init__(self, fitness: Fitness, table: ItemTable) -> None:
        self.fitness = fitness
        self.table = table

    def values(self, marks: Marks, draw: Draw) -> dict[str, Pair]:
        """Value and standard error of each objective, in the metric's own units.

        The error includes the sampling of items: it is about the benchmark, not about this draw.
        """
        return {
            label: self._combine([self._task(marks, draw, key, objective.metric) for key in self.fitness.keys(label)])
            for label, objective in self.fitness.objectives.items()
        }

    def joined(self, marks: Sequence[Marks]) -> dict[str, Pair]:
        """Values over all pools together, `marks` being those of each in turn."""
        found = {}
        for label, objective in self.fitness.objectives.items():
            parts = []
            for key in self.fitness.keys(label):
                task = self.table.tasks[key]
                name = task.metric(objective.metric)
                values = np.concatenate([np.asarray(part[key][name or ""]) for part in marks if key in part])
                whole = task.whole()
                parts.append(mean_and_error(values, whole.clusters, whole.weights))
            found[label] = self._combine(parts)
        return found

    def differences(self, marks: Marks, other: Marks, draw: Draw) -> dict[str, Pair]:
        """`marks` minus `other` on the same items, value and standard error of each objective."""
        return {
            label: self._combine(
                [self._task(marks, draw, key, objective.metric, minus=other) for key in self.fitness.keys(label)]
            )
            for label, objective in self.fitness.objectives.items()
        }

    def utilities(self, marks: Marks, draw: Draw) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What the optimiser is told: values signed so that higher is better, with tie breaks, and their errors.

        The errors are those of the search pool's own mean: none if all of the pool was drawn.
        """
        values = self.values(marks, draw)
        told, errors = [], []
        for label, objective in self.fitness.objectives.items():
            value, error = values[label]
            told.append(self.sign(label) * value + self._tie_break(marks, draw, label, objective))
            errors.append(error * math.sqrt(1 - self._share_drawn(draw, label)))
        return tuple(told), tuple(errors)

    def sign(self, label: str) -> int:
        """1 if higher is better for this objective, else -1."""
        objective = self.fitness.objectives[label]
        if objective.direction is not None:
            return 1 if objective.direction == "max" else -1
        return self._metric_sign(self.fitness.keys(label)[0], objective.metric)

    def oriented(self, values: Mapping[str, Pair]) -> tuple[float, ...]:
        """Values of all objectives, signed so that higher is better."""
        return tuple(self.sign(label) * values[label][0] for label in self.fitness.objectives)

    def _task(self, marks: Marks, draw: Draw, key: str, metric: str | None, *, minus: Marks | None = None) -> Pair:
        name = self.table.tasks[key].metric(metric)
        assert name is not None, "metrics are checked when a run is opened"
        values = np.asarray(marks[key][name])
        if minus is not None:
            values = values - np.asarray(minus[key][name])
        pool, places = self._pool(draw, key), None if draw.places is None else draw.places[key]
        clusters = pool.clusters if places is None else [pool.clusters[place] for place in places]
        return mean_and_error(values, clusters, pool.shares(places) if pool.weights else ())

    def _pool(self, draw: Draw, key: str) -> Pool:
        return self.table.tasks[key].pool(draw.pool)

    def _share_drawn(self, draw: Draw, label: str) -> float:
        if draw.places is None:
            return 1.0
        keys = self.fitness.keys(label)
        return min(len(draw.places[key]) / len(self._pool(draw, key).ids) for key in keys)

    def _tie_break(self, marks: Marks, draw: Draw, label: str, objective: Objective) -> float:
        if objective.tie_break is None:
            return 0.0
        metric = objective.tie_break.metric
        keys = self.fitness.keys(label)
        parts = [self._metric_sign(key, metric) * self._task(marks, draw, key, metric)[0] for key in keys]
        return objective.tie_break.weight * sum(parts) / len(parts)

    def _metric_sign(self, key: str, metric: str | None) -> int:
        task = self.table.tasks[key]
        name = task.metric(metric)
        assert name is not None, "metrics are checked when a run is opened"
        return 1 if task.metrics[name] else -1

    @staticmethod
    def _combine(parts: Sequence[Pair]) -> Pair:
        """Mean of independent tasks' means."""
        value = sum(mean for mean, _ in parts) / len(parts)
        return value, math.sqrt(sum(error**2 for _, error in parts)) / len(parts)


class MeanObserver:
    """The first observer: every candidate is worth the mean of its marks on the same items."""

    def __init__(self, grader: Grader, draw: Draw = SEARCH) -> None:
        self._grader = grader
        self._draw = draw

    def observe(self, evaluations: Sequence[Evaluation]) -> list[Observation]:
        """One observation per evaluation."""
        return [self._observation(evaluation) for evaluation in evaluations]

    def _observation(self, evaluation: Evaluation) -> Observation:
        if isinstance(evaluation.outcome, Failure):
            return Observation(number=evaluation.number, utilities=None)
        utilities, errors = self._grader.utilities(evaluation.outcome, self._draw)
        return Observation(number=evaluation.number, utilities=utilities, errors=errors)
