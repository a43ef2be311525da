"""Items' parameters by marginal maximum likelihood, from what many models answered.

The EM algorithm of Bock & Aitkin (1981), with quadrature that follows each model's own posterior (Naylor & Smith 1982):
Gauss-Hermite nodes for one and two dimensions, the 2 D points of a cubature rule (McNamee & Stenger 1967) for more.
Fitting abilities and items jointly instead would over-estimate slopes. Abilities are standard normal; slopes of each
dimension, and offsets, come from normal distributions of their own that are fitted with them, so few models, or items
that all or none got right, leave an item near the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy import special

from evomerge.estimate.evidence import Floats
from evomerge.estimate.irt import ItemParameters

NODES = {1: 7, 2: 3}
"""Quadrature nodes along each dimension."""
LEANING = 100
"""Models from which on the items' distribution counts half: it is not quite normal, and few models need it most."""
ROUNDS = 200
SETTLED = 3e-3
"""The largest change of any parameter in a round that ends the fit."""
LONGEST = 1.0
"""How far a step of Newton's may take any parameter."""
BLOCK = 2_000_000
"""Chances held at once, in numbers."""


def fit_items(marks: Floats, dimensions: int) -> ItemParameters:
    """Parameters of every item from marks (models, items) between 0 and 1, NaN where there is none."""
    panel = _Panel(np.nan_to_num(marks), ~np.isnan(marks) * 1.0)
    abilities = _first_abilities(marks, dimensions)
    rule = _rule(dimensions)
    table = np.zeros((marks.shape[1], dimensions + 1))  # (items, dims + 1): slopes, then minus offsets
    prior = _Prior(np.zeros(dimensions + 1), np.ones(dimensions + 1))
    only = np.ones((len(marks), 1))
    for _ in range(8):
        table, doubt = _items_step(panel, table, prior, abilities[:, None, :], only)
    for _ in range(ROUNDS):
        prior = _prior_of(table, doubt, looseness=1 + len(marks) / LEANING)
        abilities, spreads = _abilities_step(panel, table, abilities)
        points, shares = _posterior(panel, table, rule, abilities, spreads)
        before = table
        table, doubt = _items_step(panel, table, prior, points, shares)
        if np.abs(table - before).max() < SETTLED:
            break
    return ItemParameters(table[:, :-1].copy(), -table[:, -1])


@dataclass(frozen=True)
class _Prior:
    """Where the items' parameters come from: a normal distribution for each column of the table."""

    centre: Floats  # (dims + 1,)
    precision: Floats  # (dims + 1,)


def _prior_of(table: Floats, doubt: Floats, *, looseness: float) -> _Prior:
    """The distribution of the parameters, as if one more item had been seen at distance 1 from the centre.

    `looseness` is how many times too large its variance is made.
    """
    centre: Floats = table.mean(axis=0)
    squares = ((table - centre) ** 2 + doubt).sum(axis=0)
    return _Prior(centre, (len(table) + 1) / (squares + 1) / looseness)


@dataclass(frozen=True)
class _Panel:
    """Marks, and 1 where there is one, else 0."""

    marks: Floats  # (models, items)
    known: Floats  # (models, items)

    def blocks(self, points: int) -> Iterator[slice]:
        """Stretches of items small enough to hold every model's chances at so many points."""
        models, items = self.marks.shape
        width = max(1, BLOCK // (models * points))
        return (slice(start, start + width) for start in range(0, items, width))


@dataclass(frozen=True)
class _Rule:
    """Points and weights that integrate against a standard normal."""

    points: Floats  # (points, dims)
    weights: Floats  # (points,)


def _rule(dimensions: int) -> _Rule:
    if dimensions not in NODES:
        arms = np.sqrt(dimensions) * np.eye(dimensions)
        return _Rule(np.vstack([arms, -arms]), np.full(2 * dimensions, 1 / (2 * dimensions)))
    nodes, weights = hermegauss(NODES[dimensions])
    points = np.array(list(product(nodes, repeat=dimensions)))
    each = np.array(list(product(weights / weights.sum(), repeat=dimensions)))
    return _Rule(points, each.prod(axis=1))


def _first_abilities(marks: Floats, dimensions: int) -> Floats:
    """The leading principal components of the marks, (models, dims), in the unit of a standard normal."""
    counts = np.maximum((~np.isnan(marks)).sum(axis=0), 1)
    centred = np.nan_to_num(marks - np.nansum(marks, axis=0) / counts)
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    wanted = min(dimensions, left.shape[1])
    first = np.zeros((len(marks), dimensions))
    # Higher ability is more right answers.
    first[:, :wanted] = left[:, :wanted] * np.where(right[:wanted].sum(axis=1) < 0, -1, 1)
    first *= np.sqrt(len(marks))
    return first


def _abilities_step(panel: _Panel, table: Floats, abilities: Floats) -> tuple[Floats, Floats]:
    """Two Newton steps towards each model's most likely ability, and the square root of its covariance there."""
    slopes, dims = table[:, :-1], table.shape[1] - 1
    squares = (slopes[:, :, None] * slopes[:, None, :]).reshape(len(slopes), -1)
    for turn in range(3):
        chances = special.expit(abilities @ slopes.T + table[:, -1])
        curvature = ((panel.known * chances * (1 - chances)) @ squares).reshape(-1, dims, dims) + np.eye(dims)
        if turn < 2:
            gradient = (panel.marks - panel.known * chances) @ slopes - abilities
            abilities = abilities + _bounded(np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0])
    return abilities, np.linalg.cholesky(np.linalg.inv(curvature))


def _posterior(panel: _Panel, table: Floats, rule: _Rule, abilities: Floats, spreads: Floats) -> tuple[Floats, Floats]:
    """Points (models, points, dims) around each model's ability, and their posterior shares (models, points)."""
    points = abilities[:, None, :] + np.einsum("mij,pj->mpi", spreads, rule.points)
    heights = np.log(rule.weights) + (rule.points**2).sum(1) / 2 - (points**2).sum(2) / 2
    for block in panel.blocks(len(rule.points)):
        marks, known = panel.marks[:, None, block], panel.known[:, None, block]
        logits = points @ table[block, :-1].T + table[block, -1]
        heights = heights + (marks * logits - known * np.logaddexp(0, logits)).sum(axis=2)
    shares: Floats = special.softmax(heights, axis=1)
    return points, shares


def _items_step(panel: _Panel, table: Floats, prior: _Prior, points: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """One Newton step of every item's logistic regression on the points, weighted by their shares.

    Returns the parameters and their variances, both (items, dims + 1).
    """
    width = table.shape[1]
    design = np.dstack([points, np.ones(points.shape[:2])]).reshape(-1, width)  # (models * points, dims + 1)
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    stepped, doubt = np.empty_like(table), np.empty_like(table)
    for block in panel.blocks(points.shape[1]):
        known = (panel.known[:, None, block] * shares[:, :, None]).reshape(len(design), -1)
        marks = (panel.marks[:, None, block] * shares[:, :, None]).reshape(len(design), -1)
        chances = special.expit(design @ table[block].T)
        gradient = (marks - known * chances).T @ design - prior.precision * (table[block] - prior.centre)
        curvature = ((known * chances * (1 - chances)).T @ squares).reshape(-1, width, width)
        covariance = np.linalg.inv(curvature + np.diag(prior.precision))
        stepped[block] = table[block] + _bounded((covariance @ gradient[:, :, None])[:, :, 0])
        doubt[block] = covariance.diagonal(axis1=1, axis2=2)
    return stepped, doubt


def _bounded(step: Floats) -> Floats:
    """Steps (rows, columns), each row shortened to the longest allowed."""
    length = np.abs(step).max(axis=1, keepdims=True)
    shortened: Floats = step * (LONGEST / np.maximum(length, LONGEST))
    return shortened
