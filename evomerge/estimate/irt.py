"""The item response model: how likely a model of some ability is to get an item right.

It is the multidimensional two-parameter logistic in slope-intercept form, `logit P = slopes @ theta - offsets`.
tinyBenchmarks (Maia Polo et al. 2024) and MERGE^3 keep `b = offsets / dims`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evomerge.estimate.evidence import Floats, Ints

STEPS = 10
"""Newton's, for every candidate; those with a maximum arrive in fewer."""
MORE_STEPS = 40
"""For the few that are not there yet, most of them on their way to infinity."""
ARRIVED = 1e-9
"""The length of a step that is none, in units of theta."""
STRAYING = 1e-6
"""The length of a last step from which there is no maximum near: on the way to infinity steps stay long."""
FARTHEST = 4.0
"""How much a step may change any logit: far from the maximum, Newton's own steps overshoot."""
FLAT = 1e-9
"""The smallest curvature, as a share of the largest, in which a direction is determined."""


@dataclass(frozen=True)
class ItemParameters:
    """How every item tells abilities apart."""

    slopes: Floats  # (items, dims)
    offsets: Floats  # (items,)

    def probabilities(self, theta: Floats) -> Floats:
        """The chance to get each item right, (..., items), of abilities (..., dims)."""
        chances: Floats = special.expit(theta @ self.slopes.T - self.offsets)
        return chances


@dataclass(frozen=True)
class Ability:
    """What one candidate's marks say of its ability.

    `undetermined`: no single ability is the most likely one (all right, all wrong, separable, or fewer items than
    dimensions), so `theta` is the one under a unit normal prior, though none was asked for.
    """

    theta: Floats  # (dims,)
    covariance: Floats  # (dims, dims)
    undetermined: bool


@dataclass(frozen=True)
class Abilities:
    """What many candidates' marks say of their abilities; see `Ability`."""

    theta: Floats  # (candidates, dims)
    covariance: Floats  # (candidates, dims, dims)
    undetermined: NDArray[np.bool_]  # (candidates,)


def ability(items: ItemParameters, places: Ints, marks: Floats, *, prior: float) -> Ability:
    """The most likely ability of one candidate, given its marks at some places of the items.

    `prior` is the precision of a normal prior around zero; 0 is the maximum likelihood of the published code.
    """
    found = abilities(items, np.zeros(len(places), np.int64), places, marks, count=1, prior=prior)
    return Ability(found.theta[0], found.covariance[0], bool(found.undetermined[0]))


def abilities(
    items: ItemParameters, candidates: Ints, places: Ints, marks: Floats, *, count: int, prior: float
) -> Abilities:
    """The most likely abilities of `count` candidates at once.

    `candidates`, `places`, `marks` (responses,) say who got what on which item, in any order. Marks between 0 and 1
    count as shares of a right and a wrong answer. Covariances are the inverse curvature at the maximum.
    """
    order = np.argsort(candidates, kind="stable")
    present, begins = np.unique(candidates[order], return_index=True)
    answers = _Answers(items.slopes[places][order], items.offsets[places][order], marks[order], begins)
    theta, information, step = _climbed(answers, prior)
    lost = np.ones(count, bool) if prior == 0 else np.zeros(count, bool)
    if prior == 0:
        lost[present] = (step > STRAYING) | _flat(information)
        again = lost[present]
        if again.any():
            theta[again], information[again], _ = _climbed(answers.only(again), 1.0)
    dims = items.slopes.shape[1]
    everyone = np.zeros((count, dims))
    everyone[present] = theta
    spread = np.tile(np.eye(dims) / (prior or 1.0), (count, 1, 1))
    spread[present] = np.linalg.inv(information)
    return Abilities(everyone, spread, lost)


@dataclass(frozen=True)
class _Answers:
    """Answers of several candidates, one candidate's after the other's."""

    slopes: Floats  # (responses, dims)
    offsets: Floats  # (responses,)
    marks: Floats  # (responses,)
    begins: Ints  # (candidates,)

    @property
    def counts(self) -> Ints:
        return np.diff(self.begins, append=len(self.marks))

    def only(self, wanted: NDArray[np.bool_]) -> "_Answers":
        """Those of some candidates."""
        counts = self.counts
        kept = np.repeat(wanted, counts)
        begins = np.concatenate([[0], np.cumsum(counts[wanted])[:-1]]).astype(np.int64)
        return _Answers(self.slopes[kept], self.offsets[kept], self.marks[kept], begins)

    def sums(self, values: Floats) -> Floats:
        """Sums of values (responses, ...) over each candidate's responses."""
        total: Floats = np.add.reduceat(values, self.begins, axis=0)
        return total

    def most(self, values: Floats) -> Floats:
        """The largest value of each candidate."""
        largest: Floats = np.maximum.reduceat(values, self.begins)
        return largest


def _climbed(answers: _Answers, prior: float) -> tuple[Floats, Floats, Floats]:
    """Where Newton's method ends: abilities, curvature there, length of the last step, all by candidate."""
    dims = answers.slopes.shape[1]
    theta = np.zeros((len(answers.begins), dims))
    information = np.tile(np.eye(dims), (len(theta), 1, 1))
    length = np.full(len(theta), np.inf)
    for most in (STEPS, MORE_STEPS):
        left = length > ARRIVED
        if left.any():
            theta[left], information[left], length[left] = _newton(answers.only(left), prior, theta[left], most)
    return theta, information, length


def _newton(answers: _Answers, prior: float, theta: Floats, most: int) -> tuple[Floats, Floats, Floats]:
    """At most so many steps from `theta`, each cut to what improves."""
    dims, counts = theta.shape[1], answers.counts
    squares = (answers.slopes[:, :, None] * answers.slopes[:, None, :]).reshape(-1, dims * dims)
    height = _height(answers, theta, prior)
    for _ in range(most):
        chances = special.expit(_logits(answers, theta, counts))
        gradient = answers.sums(answers.slopes * (answers.marks - chances)[:, None]) - prior * theta
        curvature = answers.sums(squares * (chances * (1 - chances))[:, None]).reshape(-1, dims, dims)
        information = curvature + prior * np.eye(dims)
        # The least ridge that keeps the inverse finite where the likelihood is flat.
        step = np.linalg.solve(information + 1e-12 * np.eye(dims), gradient[:, :, None])[:, :, 0]
        reach = answers.most(np.abs((answers.slopes * np.repeat(step, counts, axis=0)).sum(1)))
        step = step * (FARTHEST / np.maximum(reach, FARTHEST))[:, None]
        theta, height = _uphill(answers, theta, step, height, prior)
        length: Floats = np.abs(step).max(axis=1)
        if (length <= ARRIVED).all():
            break
    return theta, information, length


def _uphill(answers: _Answers, theta: Floats, step: Floats, height: Floats, prior: float) -> tuple[Floats, Floats]:
    """Each candidate's step, halved until it leads no lower."""
    share = np.ones(len(theta))
    for _ in range(12):
        moved = theta + share[:, None] * step
        reached = _height(answers, moved, prior)
        lower = reached < height - 1e-9 * (1 + np.abs(height))
        if not lower.any():
            break
        share[lower] /= 2
    return moved, reached


def _height(answers: _Answers, theta: Floats, prior: float) -> Floats:
    """Log-likelihood plus log-prior of each candidate."""
    logits = _logits(answers, theta, answers.counts)
    height: Floats = answers.sums(answers.marks * logits - np.logaddexp(0, logits)) - prior / 2 * (theta**2).sum(1)
    return height


def _logits(answers: _Answers, theta: Floats, counts: Ints) -> Floats:
    logits: Floats = np.einsum("rd,rd->r", answers.slopes, np.repeat(theta, counts, axis=0)) - answers.offsets
    return logits


def _flat(information: Floats) -> NDArray[np.bool_]:
    """Whether some direction has next to no curvature."""
    curvatures = np.linalg.eigvalsh(information)
    flat: NDArray[np.bool_] = curvatures[:, 0] <= FLAT * np.maximum(curvatures[:, -1], FLAT)
    return flat
