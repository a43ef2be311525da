"""How much of each parent there is in a merge: an ability as a mixture of the parents' (MERGE^3's lambda).

Both ways to fit it return items' parameters in terms of what was fitted, that as an ability, and lambda (parents,).
"""

import numpy as np
from scipy import optimize, special

from evomerge.estimate.evidence import Evidence, Floats
from evomerge.estimate.irt import Ability, ItemParameters, abilities, ability


def parent_abilities(items: ItemParameters, answers: Floats, *, prior: float = 1.0) -> Floats:
    """Abilities (parents, dims) of parents by their answers (parents, items), NaN where there is none."""
    who, places = np.nonzero(~np.isnan(answers))
    return abilities(items, who, places, answers[who, places], count=len(answers), prior=prior).theta


def free_mixture(
    evidence: Evidence, items: ItemParameters, parents: Floats, prior: float
) -> tuple[ItemParameters, Ability, Floats]:
    """Lambda anywhere, in the directions in which the parents differ; in the others it stays at equal parts."""
    even = np.full(len(parents), 1 / len(parents))
    _, sizes, directions = np.linalg.svd(parents.T, full_matrices=False)
    rank = max(1, int((sizes > 1e-9 * max(float(sizes.max()), 1e-9)).sum()))
    basis = directions[:rank].T  # (parents, rank)
    mixed = ItemParameters(items.slopes @ parents.T @ basis, items.offsets - items.slopes @ (even @ parents))
    found = ability(mixed, evidence.places, evidence.marks, prior=prior)
    return mixed, found, even + basis @ found.theta


def simplex_mixture(
    evidence: Evidence, items: ItemParameters, parents: Floats
) -> tuple[ItemParameters, Ability, Floats]:
    """Lambda not negative and summing to 1.

    At an edge the curvature tells little, so no direction that keeps the sum is taken to be less sure than the
    distance of two lambdas drawn at random.
    """
    count = len(parents)
    mixed = ItemParameters(items.slopes @ parents.T, items.offsets)
    parts = _most_likely_parts(mixed.slopes[evidence.places], mixed.offsets[evidence.places], evidence.marks)
    chances = mixed.probabilities(parts)[evidence.places]
    slopes = mixed.slopes[evidence.places]
    curvature = (slopes * (chances * (1 - chances))[:, None]).T @ slopes
    keeping = np.linalg.svd(np.ones((1, count)))[2][1:].T  # (parents, parents - 1)
    unknown = count * (count + 1) / 2 * np.eye(count)  # over twice the variance of Dirichlet(1)
    covariance = keeping @ np.linalg.inv(keeping.T @ (curvature + unknown) @ keeping) @ keeping.T
    return mixed, Ability(parts, covariance, False), parts


def _most_likely_parts(slopes: Floats, offsets: Floats, marks: Floats) -> Floats:
    """Parts (parents,) of the simplex that make the marks most likely; equal ones where they do not tell."""
    count = slopes.shape[1]
    even = np.full(count, 1 / count)
    if count == 1:
        return even

    def loss(parts: Floats) -> tuple[float, Floats]:
        logits, away = slopes @ parts - offsets, parts - even
        value = float((np.logaddexp(0, logits) - marks * logits).sum() + 1e-6 * away @ away)
        return value, slopes.T @ (special.expit(logits) - marks) + 2e-6 * away

    whole = {"type": "eq", "fun": lambda parts: parts.sum() - 1, "jac": np.ones_like}
    found = optimize.minimize(
        loss, even, jac=True, method="SLSQP", bounds=[(0, 1)] * count, constraints=[whole], options={"ftol": 1e-12}
    )
    clipped = np.clip(found.x, 0, 1)
    parts: Floats = clipped / clipped.sum()
    return parts
