"""Gaussian processes of many outputs with one kernel between them: what all items say of which genes matter."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.losses import Floats

CONSTANT = 25.0
"""Variance of an output's level beside what varies; outputs are told centred."""
LENGTH = 0.53
"""A gene's length before anything is known: half of its range."""
BEFORE = (0.8, 1.4, -7.0)
"""Logarithms of the linear, the curved and the noise's variance before anything is known."""
BOUNDS = ((-5.2, 4.8), (-4.0, 5.0), (-12.0, 0.0))
LENGTHS = (np.log(0.1), np.log(5.3))
WORTH = 50.0
"""Independent outputs that all of them together count for, against what is believed before: items are much alike."""
BELIEF = 0.2
"""The weight of what is believed before."""
MOST_PATTERNS = 40
"""Outputs that lack different points have matrices of their own; so many of them are enough to fit a kernel."""
FLAT = 1e-12
"""Squared outputs count as so much at least: where all are zero any kernel fits."""
REFUSED = 1e25
"""The misfit of a kernel whose matrix is singular."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """The covariance of an output at two points: a constant, a linear part around `centre`, and a curved one.

    `logs` are logarithms (3 + genes,): variances of the linear part, the curved one and the noise, then lengths.
    `owners` (features,) says whose gene's length a feature has.
    """

    logs: Floats
    owners: NDArray[np.int64]
    centre: Floats

    @classmethod
    def prior(cls, owners: NDArray[np.int64], centre: Floats) -> "Kernel":
        """Before anything is known."""
        return cls(np.array([*BEFORE, *[np.log(LENGTH)] * (int(owners.max()) + 1)]), owners, centre)

    @property
    def inverse_squares(self) -> Floats:
        """One over the squared length of each feature."""
        squares: Floats = np.exp(-2 * self.logs[3:])[self.owners]
        return squares

    def linear(self, points: Floats, others: Floats) -> Floats:
        """(points, others)"""
        product: Floats = np.exp(self.logs[0]) * (points - self.centre) @ (others - self.centre).T
        return product

    def curved(self, points: Floats, others: Floats) -> Floats:
        """(points, others)"""
        scales = np.sqrt(self.inverse_squares)
        one, two = (points - self.centre) * scales, (others - self.centre) * scales
        squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
        found: Floats = np.exp(self.logs[1] - 0.5 * np.maximum(squares, 0))
        return found

    def between(self, points: Floats, others: Floats) -> Floats:
        """The covariance (points, others), without noise."""
        return CONSTANT + self.linear(points, others) + self.curved(points, others)

    def among(self, points: Floats) -> Floats:
        """Of told points, noise included (points, points)."""
        found: Floats = self.between(points, points) + np.exp(self.logs[2]) * np.eye(len(points))
        return found

    def slopes(self, points: Floats, weights: Floats) -> Floats:
        """Of the sum of `weights` (points, points; symmetric) times the covariance by `logs` (3 + genes,)."""
        curved = weights * self.curved(points, points)
        around = points - self.centre
        linear = np.sum(weights * self.linear(points, points))
        spans = 2 * ((around**2).T @ curved.sum(1) - np.sum(around * (curved @ around), axis=0))
        lengths = np.bincount(self.owners, spans * self.inverse_squares, minlength=len(self.logs) - 3)
        noise = np.trace(weights) * np.exp(self.logs[2])
        found: Floats = np.concatenate([[linear, curved.sum(), noise], lengths])
        return found


@dataclass(frozen=True, eq=False)
class Process:
    """What was told of points (points, features), as a kernel and weights (points, outputs) give it back anywhere."""

    kernel: Kernel
    points: Floats
    weights: Floats

    def means(self, points: Floats) -> Floats:
        """Outputs expected at points (others, features): (others, outputs)."""
        found: Floats = self.kernel.between(points, self.points) @ self.weights
        return found

    def pulled(self, point: Floats, slopes: Floats) -> Floats:
        """Slopes by outputs (outputs,) at a point (features,) as slopes by its features."""
        pull = self.weights @ slopes
        curved = pull * self.kernel.curved(point[None], self.points)[0]
        near = curved @ self.points - curved.sum() * point
        linear = np.exp(self.kernel.logs[0]) * pull @ (self.points - self.kernel.centre)
        found: Floats = linear + near * self.kernel.inverse_squares
        return found


@dataclass(frozen=True, eq=False)
class Lessons:
    """Outputs told of points: (points, features) and (points, outputs), NaN where nothing was told.

    An output that was told of no point is all NaN and is expected to be zero.
    """

    points: Floats
    outputs: Floats

    @cached_property
    def patterns(self) -> Sequence["_Pattern"]:
        """Outputs that the same points were told of."""
        there = ~np.isnan(self.outputs)
        if there.all():
            return [_Pattern(np.arange(len(there)), np.arange(there.shape[1]), self.outputs)]
        _, first, which = np.unique(np.packbits(there, axis=0), axis=1, return_index=True, return_inverse=True)
        found = []
        for number, output in enumerate(first):
            rows, columns = np.flatnonzero(there[:, output]), np.flatnonzero(which.ravel() == number)
            if len(rows):
                found.append(_Pattern(rows, columns, self.outputs[np.ix_(rows, columns)]))
        return found

    def conditioned(self, kernel: Kernel) -> Process:
        """The process with this kernel."""
        from scipy.linalg import cho_factor, cho_solve  # Slow to load, and whoever only reads a run need not wait.

        covariance = kernel.among(self.points)
        weights = np.zeros(self.outputs.shape)
        for pattern in self.patterns:
            factor = cho_factor(covariance[np.ix_(pattern.rows, pattern.rows)], lower=True)
            weights[np.ix_(pattern.rows, pattern.columns)] = cho_solve(factor, pattern.outputs)
        return Process(kernel, self.points, weights)

    def fitted(self, kernel: Kernel, steps: int) -> Kernel:
        """The kernel after so many steps towards what makes the outputs likely."""
        from scipy.optimize import minimize

        def misfit(logs: Floats) -> tuple[float, Floats]:
            return self.misfit(replace(kernel, logs=logs))

        bounds = [*BOUNDS, *[LENGTHS] * (len(kernel.logs) - len(BOUNDS))]
        found = minimize(misfit, kernel.logs, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
        return replace(kernel, logs=found.x) if found.fun < REFUSED else kernel

    def misfit(self, kernel: Kernel) -> tuple[float, Floats]:
        """How unlikely the outputs are under a kernel, whatever their common scale, with slopes by its logarithms."""
        covariance = kernel.among(self.points)
        patterns = self._some
        try:
            solved = [_solved(covariance, pattern) for pattern in patterns]
        except np.linalg.LinAlgError:
            return REFUSED, np.zeros(len(kernel.logs))
        count = sum(pattern.count for pattern in patterns)
        fit = max(sum(each.fit for each in solved), FLAT)
        volume = sum(each.volume for each in solved)
        weights = np.zeros(covariance.shape)
        for pattern, each in zip(patterns, solved, strict=True):
            both = np.ix_(pattern.rows, pattern.rows)
            weights[both] += len(pattern.columns) * each.inverse - count / fit * each.explained
        value = WORTH / 2 * (np.log(fit / count) + volume / count)
        slopes = kernel.slopes(self.points, weights * WORTH / 2 / count)
        believed, pull = _belief(kernel)
        return value + believed, slopes + pull

    @cached_property
    def _some(self) -> Sequence["_Pattern"]:
        every = np.linspace(0, len(self.patterns) - 1, min(MOST_PATTERNS, len(self.patterns)))
        return [self.patterns[place] for place in every.astype(int)]


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Outputs (columns) with the points (rows) that they were told of, and what was told (rows, columns)."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    outputs: Floats

    @property
    def count(self) -> int:
        return self.outputs.size

    @cached_property
    def products(self) -> Floats:
        """Sums over outputs of products of two points' (rows, rows)."""
        found: Floats = self.outputs @ self.outputs.T
        return found


@dataclass(frozen=True, eq=False)
class _Solved:
    """A pattern under a kernel: its squared outputs in units of what is expected, the log-volume, and their slopes."""

    fit: float
    volume: float
    inverse: Floats
    explained: Floats


def _solved(covariance: Floats, pattern: _Pattern) -> _Solved:
    from scipy.linalg import cholesky, lapack

    factor = cholesky(covariance[np.ix_(pattern.rows, pattern.rows)], lower=True)
    lower, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    once = inverse @ pattern.products
    volume = 2 * len(pattern.columns) * float(np.log(np.diagonal(factor)).sum())
    return _Solved(float(np.trace(once)), volume, inverse, once @ inverse)


def _belief(kernel: Kernel) -> tuple[float, Floats]:
    """How far a kernel is from what was believed of it, with slopes by its logarithms."""
    before = np.array([*BEFORE, *[np.log(LENGTH)] * (len(kernel.logs) - 3)])
    sharpness = np.array([0.25, 0.25, 0.25, *[2.0] * (len(kernel.logs) - 3)])
    off = kernel.logs - before
    return BELIEF * float(np.sum(sharpness * off**2)) / 2, BELIEF * sharpness * off
