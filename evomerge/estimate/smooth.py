"""A Gaussian process over genomes: what neighbours say of a point (Rasmussen & Williams 2006, chapter 2)."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from evomerge.estimate.evidence import Floats

LENGTHS = (0.15, 0.3, 0.6)
"""Length scales tried, in diagonals of the unit cube."""

MOST = 1000
"""Points that a smoothing of all candidates goes by."""


@dataclass(frozen=True)
class Surface:
    """A fitted process: `mean` plus what the known points pull a point to."""

    genomes: Floats  # (points, genes)
    pulls: Floats  # (points,)
    mean: float
    variance: float
    length: float

    def __call__(self, genomes: Floats) -> Floats:
        """The expected value at genomes (points, genes)."""
        kernel = self.variance * _closeness(genomes, self.genomes, self.length)
        return np.asarray(self.mean + kernel @ self.pulls)


def fit_surface(genomes: Floats, values: Floats, noise: Floats) -> Surface:
    """A process through `values` (points,) known up to the variance `noise` (points,).

    The length scale is the likeliest of three, the variance what the values spread beyond their noise. Far from all
    points their mean by precision is expected.
    """
    weights = 1 / (noise + max(float(np.var(values)), 1e-12))
    centre = float(weights @ values / weights.sum())
    variance = max(float(np.average((values - centre) ** 2 - noise, weights=weights)), 1e-6)
    squares = cdist(genomes, genomes, "sqeuclidean") / genomes.shape[1]
    fits = [_fitted(squares, values - centre, noise, (variance, length)) for length in LENGTHS]
    _, pulls, length = max(fits, key=lambda fit: fit[0])
    return Surface(genomes, pulls, centre, variance, length)


def shrunken(genomes: Floats, values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """What values (points,) of known error are worth in the light of their neighbours, and how sure that is.

    The best of many noisy values was lucky; this is the expectation that takes the luck out again. Above MOST points
    the best of them count.
    """
    kept = np.argsort(-values, kind="stable")[:MOST]
    surface = fit_surface(genomes[kept], values[kept], errors[kept] ** 2)
    kernel = surface.variance * _closeness(genomes[kept], genomes[kept], surface.length)
    noisy = kernel + np.diag(np.maximum(errors[kept] ** 2, 1e-9 + 1e-6 * surface.variance))
    left = kernel - kernel @ cho_solve(cho_factor(noisy, lower=True), kernel)
    means, deviations = values.copy(), errors.copy()
    means[kept] = surface.mean + kernel @ surface.pulls
    deviations[kept] = np.sqrt(np.maximum(np.diag(left), 0.0))
    return means, deviations


def _fitted(squares: Floats, values: Floats, noise: Floats, shape: tuple[float, float]) -> tuple[float, Floats, float]:
    """Log-likelihood up to a constant, the pulls, and the length scale again; from squared distances a gene."""
    variance, length = shape
    covariance = variance * np.exp(-0.5 * squares / length**2)
    covariance[np.diag_indices_from(covariance)] += np.maximum(noise, 1e-9 + 1e-6 * variance)
    factor = cho_factor(covariance, lower=True, check_finite=False)
    pulls = cho_solve(factor, values, check_finite=False)
    likelihood = -0.5 * float(values @ pulls) - float(np.log(np.diag(factor[0])).sum())
    return likelihood, np.asarray(pulls), length


def _closeness(one: Floats, other: Floats, length: float) -> Floats:
    return np.asarray(np.exp(-0.5 * cdist(one, other, "sqeuclidean") / one.shape[1] / length**2))
