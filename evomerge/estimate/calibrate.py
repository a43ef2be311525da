"""From what many models answered to a calibration: how many dimensions, items' parameters, anchors, fit quality."""

from dataclasses import dataclass

import numpy as np

from evomerge.errors import SpecError
from evomerge.estimate.anchors import anchors as choose_anchors
from evomerge.estimate.calibration import Calibration, DimensionFit, TaskFit
from evomerge.estimate.evidence import Floats
from evomerge.estimate.fit import fit_items
from evomerge.estimate.irt import abilities
from evomerge.estimate.panel import Panel

ANCHORS = 50
TRIED = (1, 2, 3, 5)
"""Numbers of dimensions to choose from."""
FEWEST_MODELS = 5
FEWEST_ITEMS = 3
HELD_OUT = 5
"""Every fifth model shows how well the others predict it, as in tinyBenchmarks."""
MODELS_EACH = 8
"""Models that a further dimension takes, if nobody insists on it."""


@dataclass(frozen=True)
class Fitting:
    """How to calibrate; `dimensions` None: as many as predict held-out models best."""

    dimensions: int | None = None
    anchors: int = ANCHORS
    seed: int = 0


def calibrate(panel: Panel, fitting: Fitting = Fitting(), *, task: str = "") -> Calibration:
    """Fit one task's items, and measure on every fifth model how well the others' parameters predict it.

    Raises:
        SpecError: there are too few models or items, or an item has no marks.
    """
    marks = _usable(panel, task, fitting.dimensions)
    held = np.arange(len(marks)) % HELD_OUT == 0
    trials = _trials(marks[~held], marks[held], fitting.dimensions)
    best = _fewest(trials)
    found = TaskFit(
        task=task,
        models=len(marks),
        items=marks.shape[1],
        dimensions=best.dimensions,
        loss=best.loss,
        baseline=_baseline(marks[~held], marks[held]),
        bias=best.bias,
        variance=float(np.nanmean(np.nanvar(marks, axis=1))),
        tried=tuple(DimensionFit(dimensions=t.dimensions, loss=t.loss, bias=t.bias) for t in trials),
    )
    places, masses = choose_anchors(_filled(marks).T, fitting.anchors, np.ones(found.items), fitting.seed)
    standing = np.zeros(found.items)
    standing[places] = masses
    items = fit_items(marks, found.dimensions)
    return Calibration(panel.items, (task,) * found.items, items, standing, (found,))


@dataclass(frozen=True)
class _Trial:
    """How parameters of so many dimensions predict held-out models."""

    dimensions: int
    losses: Floats  # (models,)
    bias: float

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


def _usable(panel: Panel, task: str, dimensions: int | None) -> Floats:
    """Marks (models, items) of models that have some."""
    name = f"{task}: " if task else ""
    marks = panel.marks[~np.isnan(panel.marks).all(axis=1)]
    models, items = marks.shape
    if models < FEWEST_MODELS or items < FEWEST_ITEMS:
        raise SpecError(
            f"{name}there are marks of {models} models on {items} items; a calibration needs at least {FEWEST_MODELS}"
            f" models, better 50, and {FEWEST_ITEMS} items"
        )
    empty = np.isnan(marks).all(axis=0)
    if empty.any():
        first = panel.items[int(np.argmax(empty))]
        raise SpecError(f"{name}{int(empty.sum())} items have no marks, {first!r} say; leave their columns out")
    train = models - len(range(0, models, HELD_OUT))
    if dimensions is not None and (dimensions >= train or 2 * dimensions > items):
        raise SpecError(
            f"{name}{dimensions} dimensions take more than {dimensions} models beside those held out, and"
            f" {2 * dimensions} items; there are {train} and {items}, choose fewer dimensions"
        )
    return marks


def _trials(known: Floats, hidden: Floats, dimensions: int | None) -> list[_Trial]:
    """The wanted number of dimensions, or one more after the other until that predicts no better."""
    if dimensions is not None:
        return [_trial(known, hidden, dimensions)]
    models, items = known.shape
    trials = [_trial(known, hidden, 1)]
    for number in TRIED[1:]:
        if number * MODELS_EACH > models or 4 * number > items:
            break
        trials.append(_trial(known, hidden, number))
        if trials[-1].loss > trials[-2].loss:
            break
    return trials


def _trial(known: Floats, hidden: Floats, dimensions: int) -> _Trial:
    """Items fitted to some models; of the others, abilities from even items and predictions of the odd ones."""
    items = fit_items(known, dimensions)
    who, places = np.nonzero(~np.isnan(hidden[:, ::2]))
    found = abilities(items, who, 2 * places, hidden[:, ::2][who, places], count=len(hidden), prior=1.0)
    logits = (found.theta @ items.slopes.T - items.offsets)[:, 1::2]
    return _Trial(dimensions, _losses(hidden[:, 1::2], logits), _bias(hidden[:, 1::2], logits))


def _baseline(known: Floats, hidden: Floats) -> float:
    """The loss if every item's mean is predicted for all models."""
    counts = (~np.isnan(known)).sum(axis=0)
    means = (np.nansum(known, axis=0) + 0.5) / (counts + 1)  # One more mark, half right: no mean is sure.
    logits = np.tile(np.log(means / (1 - means)), (len(hidden), 1))
    return float(_losses(hidden[:, 1::2], logits[:, 1::2]).mean())


def _losses(marks: Floats, logits: Floats) -> Floats:
    """Mean log-loss (models,) of marks (models, items), of models that have any."""
    known = ~np.isnan(marks)
    each = np.where(known, np.logaddexp(0, logits) - np.nan_to_num(marks) * logits, 0)
    some = known.any(axis=1)
    losses: Floats = each[some].sum(axis=1) / known[some].sum(axis=1)
    return losses if some.any() else np.array([float(np.log(2))])


def _bias(marks: Floats, logits: Floats) -> float:
    """How far predicted means of the known marks are off, over models."""
    known = ~np.isnan(marks)
    some = known.any(axis=1)
    gaps = np.where(known, 1 / (1 + np.exp(-logits)) - np.nan_to_num(marks), 0)[some].sum(axis=1)
    return float(np.abs(gaps / known[some].sum(axis=1)).mean()) if some.any() else 0.5


def _fewest(trials: list[_Trial]) -> _Trial:
    """The first trial that is not worse than the best by more than a standard error of the difference."""
    best = min(trials, key=lambda trial: trial.loss)
    for trial in trials:
        gaps = trial.losses - best.losses
        error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        if gaps.mean() <= error:
            return trial
    return best


def _filled(marks: Floats) -> Floats:
    """Marks with every gap at its item's mean."""
    means = np.nanmean(marks, axis=0)
    filled: Floats = np.where(np.isnan(marks), means, marks)
    return filled
