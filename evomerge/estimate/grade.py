"""Means of marks with standard errors clustered by item group, and exact costs, objective by objective."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.estimate.evidence import in_unit, interval, share_interval
from evomerge.fitness import Fitness
from evomerge.items import COST, ItemTable, Pool, PoolName
from evomerge.trial import Draw, Marks

Pair: TypeAlias = tuple[float, float]
"""A value and its standard error."""


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
    """Reads marks as objectives: each a mean over its tasks of the weighted mean over the drawn items, or a cost."""

    def __init__(self, fitness: Fitness, table: ItemTable) -> None:
        self.fitness = fitness
        self.table = table
        self.costs = fitness.costs()

    def values(self, marks: Marks, draw: Draw) -> dict[str, Pair]:
        """Value and standard error of each objective, in the metric's own units.

        The error includes the sampling of items: it is about the benchmark, not about this draw.
        """
        return {label: self._value(marks, draw, label) for label in self.fitness.objectives}

    def joined(self, marks: Sequence[Marks]) -> dict[str, Pair]:
        """Values over all pools together, `marks` being those of each in turn."""
        found = {}
        for label, objective in self.fitness.objectives.items():
            if label in self.costs:
                found[label] = self.cost(marks[0], label), 0.0
                continue
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
        return {label: self._value(marks, draw, label, minus=other) for label in self.fitness.objectives}

    def cost(self, marks: Marks, label: str) -> float:
        """A cost, which is exact, whatever the items."""
        return marks[COST][self.costs[label]][0]

    def interval(self, marks: Marks, pool: PoolName, label: str) -> tuple[float, float]:
        """The 95 % interval of an objective on all of a pool.

        Degrees of freedom are the clusters of its smallest task, less one. That of a cost is a point.
        """
        if label in self.costs:
            return self.cost(marks, label), self.cost(marks, label)
        keys, metric = self.fitness.keys(label), self.fitness.objectives[label].metric
        freedom = min(len(set(self.table.tasks[key].pool(pool).clusters)) for key in keys) - 1
        within = all(in_unit(np.asarray(marks[key][self.metric_name(key, metric)])) for key in keys)
        return (share_interval if within else interval)(*self._value(marks, Draw(pool=pool), label), freedom)

    def sign(self, label: str) -> int:
        """1 if higher is better for this objective, else -1."""
        objective = self.fitness.objectives[label]
        if label in self.costs:
            return -1
        if objective.direction is not None:
            return 1 if objective.direction == "max" else -1
        return self.metric_sign(self.fitness.keys(label)[0], objective.metric)

    def utility(self, label: str, value: float) -> float:
        """A value signed so that higher is better; a cost as a share of an unchanged parent's, so that units agree."""
        cost = self.costs.get(label)
        return self.sign(label) * (value if cost is None else value / self.table.costs[cost])

    @property
    def are_costs(self) -> list[bool]:
        """For each objective, whether it is a cost."""
        return [label in self.costs for label in self.fitness.objectives]

    def oriented(self, values: Mapping[str, Pair]) -> tuple[float, ...]:
        """Values of all objectives as utilities: higher is better."""
        return tuple(self.utility(label, values[label][0]) for label in self.fitness.objectives)

    def _value(self, marks: Marks, draw: Draw, label: str, *, minus: Marks | None = None) -> Pair:
        if label in self.costs:
            return self.cost(marks, label) - (self.cost(minus, label) if minus is not None else 0.0), 0.0
        metric = self.fitness.objectives[label].metric
        return self._combine([self._task(marks, draw, key, metric, minus=minus) for key in self.fitness.keys(label)])

    def _task(self, marks: Marks, draw: Draw, key: str, metric: str | None, *, minus: Marks | None = None) -> Pair:
        name = self.metric_name(key, metric)
        values = np.asarray(marks[key][name])
        if minus is not None:
            values = values - np.asarray(minus[key][name])
        pool, places = self._pool(draw, key), None if draw.places is None else draw.places[key]
        clusters = pool.clusters if places is None else [pool.clusters[place] for place in places]
        return mean_and_error(values, clusters, pool.shares(places) if pool.weights else ())

    def _pool(self, draw: Draw, key: str) -> Pool:
        return self.table.tasks[key].pool(draw.pool)

    def metric_sign(self, key: str, metric: str | None) -> int:
        """1 if higher is better for this metric of a task, else -1."""
        return 1 if self.table.tasks[key].metrics[self.metric_name(key, metric)] else -1

    def metric_name(self, key: str, metric: str | None) -> str:
        """A metric as the task names it."""
        name = self.table.tasks[key].metric(metric)
        assert name is not None, "metrics are checked when a run is opened"
        return name

    @staticmethod
    def _combine(parts: Sequence[Pair]) -> Pair:
        """Mean of independent tasks' means."""
        value = sum(mean for mean, _ in parts) / len(parts)
        return value, math.sqrt(sum(error**2 for _, error in parts)) / len(parts)
