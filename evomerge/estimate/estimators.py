"""Estimates that rest on how the items were drawn: whatever a response model believes, they are right on average.

The variance is Hájek's for samples of fixed size: `n / (n - 1) * sum (1 - pi) (z - centre)^2`, with `z` what each
drawn item adds and `centre` its mean weighted by `1 - pi` (Hájek 1981; Deville & Tillé 2005).
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from evomerge.estimate.evidence import NO_DIAGNOSTICS, Estimate, Evidence, Floats, Ints, estimated, in_unit

NOTHING_KNOWN = 0.5
"""The standard error of a single mark in [0, 1]."""
PSEUDO_ITEMS = 1.0
"""How many items the expected variance of marks counts for, beside the observed one: a sample of items that all came
out as expected does not make an estimate certain."""
SHIFT_VARIANCE = 0.25
"""Of a model's common shift in log-odds against what was predicted of it: what siblings of one search differ by."""
STEPS = 20
"""Newton's, at most; a few are enough."""


def mean(evidence: Evidence) -> Estimate:
    """Mean of the drawn marks, each weighted by its item's weight over its probability (Hájek 1971)."""
    return _mean(evidence, evidence.shares)


def weighted(evidence: Evidence) -> Estimate:
    """Sum of the marks by the masses of the anchors they stand for; without masses the mean.

    The error treats anchors as a random sample with these weights; of the choice itself it knows nothing.
    """
    return mean(evidence) if evidence.masses is None else _mean(evidence, evidence.masses / evidence.masses.sum())


def difference(evidence: Evidence) -> Estimate:
    """The parents' mean mark of every item, corrected on the drawn ones (Cassel, Särndal & Wretman 1976)."""
    if not evidence.parents.size:
        return mean(evidence)
    return corrected(evidence, evidence.parents.mean(axis=0))


def aipw(evidence: Evidence) -> Estimate:
    """What the response model predicts, corrected on the drawn items: `sum w f + sum_S w (y - f) / pi`.

    Unbiased for any prediction that was made before the draw; the better it is, the smaller the error
    (Robins, Rotnitzky & Zhao 1994).
    """
    return difference(evidence) if evidence.predicted is None else corrected(evidence, evidence.predicted)


def corrected(evidence: Evidence, predicted: Floats) -> Estimate:
    """The total of `predicted` (items,) plus the drawn residuals, each over its probability."""
    drawn, chances = evidence.places, evidence.probabilities
    residuals = evidence.marks - predicted[drawn]
    pulls = evidence.weights[drawn] * residuals / chances
    value = float(evidence.weights @ predicted + pulls.sum())
    variance = _variance(pulls, chances)
    if in_unit(predicted) and in_unit(evidence.marks):
        expected = predicted[drawn] * (1 - predicted[drawn])
        model = float(np.sum((1 - chances) * (evidence.weights[drawn] / chances) ** 2 * expected))
        variance = (len(drawn) * variance + PSEUDO_ITEMS * max(model, 0.0)) / (len(drawn) + PSEUDO_ITEMS)
    return _estimate(evidence, value, variance, {"residual": float(residuals.mean())})


def plug_in(evidence: Evidence) -> Estimate:
    """The drawn marks, and for all other items the prediction shifted by what this model did on the drawn ones.

    `logit p_i = logit f_i + d`, `d ~ N(0, 1/4)` fitted by its mode. It varies little and is biased where the model is
    wrong; the error is the model's own belief. Marks in [0, 1] only.
    """
    assert evidence.predicted is not None, "a plug-in estimate needs predictions"
    odds = logit(evidence.predicted)
    nobody_else = np.zeros(len(evidence.places), dtype=np.int64)
    shifts, precisions = fitted_shifts(odds[evidence.places], evidence.marks, nobody_else, 1, variance=SHIFT_VARIANCE)
    shift, precision = float(shifts[0]), float(precisions[0])
    filled = expit(odds + shift)
    slopes = evidence.weights * filled * (1 - filled)
    unseen = np.ones(len(filled), dtype=bool)
    unseen[evidence.places] = False
    filled[evidence.places] = evidence.marks
    value = float(evidence.weights @ filled)
    variance = slopes[unseen].sum() ** 2 / precision + float((evidence.weights * slopes)[unseen].sum())
    return _estimate(evidence, value, float(variance), {"shift": shift})


def blend(evidence: Evidence, bias: float) -> Estimate:
    """The two of `aipw` and `plug_in` that err together least: `share = bias / (bias + v)` of the former.

    `bias` is the mean squared bias of plug-in estimates, `v` the variance of this `aipw` estimate.
    """
    if evidence.whole or evidence.predicted is None:
        return aipw(evidence)
    sure, cheap = aipw(evidence), plug_in(evidence)
    variance = sure.error**2
    share = bias / (bias + variance) if bias + variance > 0 else 1.0
    value = share * sure.value + (1 - share) * cheap.value
    squared = share**2 * variance + (1 - share) ** 2 * (cheap.error**2 + bias)
    return _estimate(evidence, value, squared, {"share": share})


def squared_bias(pairs: list[tuple[Estimate, Estimate]]) -> float:
    """The mean squared bias of plug-in estimates, from (aipw, plug-in) pairs: what their gaps are beyond noise."""
    if not pairs:
        return 0.0
    gaps = [(sure.value - cheap.value) ** 2 - sure.error**2 for sure, cheap in pairs]
    return max(0.0, sum(gaps) / len(gaps))


def fitted_shifts(odds: Floats, marks: Floats, who: Ints, count: int, *, variance: float) -> tuple[Floats, Floats]:
    """Modes of `count` candidates' common shifts of log-odds under N(0, variance), and the precisions there.

    `odds`, `marks` and `who` (answers,) say what was expected of each answer, what came, and whose it is.
    """
    shifts, precisions = np.zeros(count), np.full(count, 1 / variance)
    for _ in range(STEPS):
        chances = expit(odds + shifts[who])
        precisions = np.bincount(who, chances * (1 - chances), minlength=count) + 1 / variance
        steps = (np.bincount(who, marks - chances, minlength=count) - shifts / variance) / precisions
        shifts = shifts + np.clip(steps, -2, 2)
        if np.abs(steps).max(initial=0.0) < 1e-8:
            break
    return shifts, precisions


def logit(chances: Floats) -> Floats:
    """Log-odds, with chances kept off 0 and 1."""
    kept = np.clip(chances, 1e-3, 1 - 1e-3)
    return np.asarray(np.log(kept / (1 - kept)))


def _mean(evidence: Evidence, shares: Floats) -> Estimate:
    """The mean of drawn marks in these shares (drawn,)."""
    chances = _chances(evidence)
    value = float(shares @ evidence.marks)
    variance = _variance(shares * (evidence.marks - value), chances)
    if variance == 0 and in_unit(evidence.marks):  # Marks that are all alike do not prove that all are.
        likely = (evidence.marks.sum() + 0.5) / (len(evidence.marks) + 1)
        variance = float(likely * (1 - likely) * ((1 - chances) @ shares**2))
    return _estimate(evidence, value, variance)


def _chances(evidence: Evidence) -> Floats:
    """The probabilities of the drawn items; of anchors, as if they had been drawn at random."""
    if evidence.masses is None:
        return evidence.probabilities
    return np.full(len(evidence.places), len(evidence.places) / len(evidence.weights))


def _variance(spread: Floats, chances: Floats) -> float:
    """Variance of the sum of what drawn items add."""
    count = len(spread)
    if count < 2:
        return math.nan
    shares = 1 - chances
    if shares.sum() <= 0:
        return 0.0
    centre = float(shares @ spread / shares.sum())
    return count / (count - 1) * float(shares @ (spread - centre) ** 2)


def _estimate(
    evidence: Evidence, value: float, variance: float, diagnostics: Mapping[str, float] = NO_DIAGNOSTICS
) -> Estimate:
    """With nothing left to draw the exact value; of a single mark nothing is known."""
    count = len(evidence.places)
    if evidence.whole:
        value, variance = float(evidence.weights[evidence.places] @ evidence.marks), 0.0
    error = NOTHING_KNOWN if math.isnan(variance) else math.sqrt(max(variance, 0.0))
    return estimated(value, error, count - 1, effective=_effective(evidence, error), diagnostics=diagnostics)


def _effective(evidence: Evidence, error: float) -> float:
    """How many items drawn at random, without replacement, would give this error."""
    shares = evidence.shares
    spread = float(shares @ (evidence.marks - shares @ evidence.marks) ** 2)
    items = len(evidence.weights)
    return len(evidence.places) if spread == 0 else spread / (error**2 + spread / items)
