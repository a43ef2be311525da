"""One metric of one task: what its marks say of a candidate, by the estimator of the fitness."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Literal, TypeAlias, assert_never

import numpy as np

from evomerge.errors import SpecError
from evomerge.estimate.estimators import (
    aipw,
    blend,
    corrected,
    difference,
    logit,
    mean,
    plug_in,
    squared_bias,
    weighted,
)
from evomerge.estimate.evidence import Estimate, Evidence, Floats, averaged, in_unit
from evomerge.estimate.expect import Expectation
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.ledger import Piece, evidence
from evomerge.estimate.mixture import parent_abilities
from evomerge.estimate.published import gmp_irt, gp_irt, mp_irt, p_irt
from evomerge.fitness import WITHOUT_CHANCE, EstimatorKind, needs_chance, takes_any_range

ByIrt: TypeAlias = Literal["p_irt", "gp_irt", "mp_irt", "gmp_irt"]
"""Estimators by a response model alone."""


class Judge:
    """Estimates of one metric, each combined over all draws that a candidate was put to.

    `clusters` say which items share their error (items,).
    """

    def __init__(self, expectation: Expectation, kind: EstimatorKind) -> None:
        self.expectation = expectation
        self.kind = kind
        pool = expectation.ledger.table.tasks[expectation.key].search
        self.weights = pool.shares()
        _, self._clusters = np.unique(np.asarray(pool.clusters), return_inverse=True)
        self._kept: dict[int, list[tuple[Estimate, Estimate]]] = {}

    def estimate(self, pieces: Sequence[Piece]) -> Estimate:
        """What pieces of one candidate say.

        Raises:
            SpecError: the estimator needs marks in [0, 1].
        """
        drawn = self._drawn(pieces)
        whole = [each for each in drawn if each[0].whole]
        parts = whole[:1] or drawn
        sizes = [_precision(each) for each, _ in parts]
        return averaged([self._by_kind(*part) for part in parts], [size / sum(sizes) for size in sizes])

    def difference(self, pieces: Sequence[Piece], others: Sequence[Piece]) -> Estimate:
        """One candidate minus another: on the items that both were put to where there are any, else of two estimates.

        On common items most of the sampling error is common too.
        """
        mine, theirs = self._drawn(pieces), self._drawn(others)
        draws = {generation: each for each, generation in theirs}
        common = [_minus(each, draws[g]) for each, g in mine if g in draws and _same_items(each, draws[g])]
        if common:
            sizes = [_precision(each) for each in common]
            return averaged([_residual(each) for each in common], [size / sum(sizes) for size in sizes])
        one, other = self.estimate(pieces), self.estimate(others)
        value = one.value - other.value
        half = math.hypot(one.high - one.value, other.value - other.low)
        error, effective = math.hypot(one.error, other.error), one.effective + other.effective
        notes = tuple(dict.fromkeys((*one.notes, *other.notes)))
        return Estimate(value, error, value - half, value + half, effective, notes=notes)

    def within_unit(self, pieces: Sequence[Piece]) -> bool:
        """Whether the parents' marks and those of these pieces all lie in [0, 1]."""
        key, metric = self.expectation.key, self.expectation.metric
        marks = [piece.marks[key][metric] for piece in pieces if piece.marks is not None and key in piece.marks]
        return in_unit(self.expectation.ledger.parents_marks(key, metric)) and all(in_unit(np.array(m)) for m in marks)

    def pool_error(self, pieces: Sequence[Piece], value: float) -> float:
        """How far the pool itself, a sample of the benchmark's items, may be off: cluster-robust, over all its items.

        Items that were not drawn count with the mark expected of them and its variance.
        """
        each, _ = self._drawn(pieces)[-1]
        marks = np.zeros(len(self.weights))
        unseen = np.ones(len(self.weights), dtype=bool)
        unseen[each.places] = False
        noise = 0.0
        if each.predicted is not None:  # As it is wherever an item was not drawn.
            expected = each.predicted
            marks[unseen] = expected[unseen]
            left = np.clip(expected * (1 - expected), 0, None)[unseen] if in_unit(each.marks) else each.marks.var()
            noise = float(np.sum(self.weights[unseen] ** 2 * left))
        marks[each.places] = each.marks
        sums = np.bincount(self._clusters, self.weights * (marks - value))
        return math.sqrt(len(sums) / max(len(sums) - 1, 1) * float(sums @ sums) + noise) if len(sums) > 1 else 0.5

    def _drawn(self, pieces: Sequence[Piece]) -> list[tuple[Evidence, int]]:
        """Evidence of every draw, with the draw's number."""
        key, metric = self.expectation.key, self.expectation.metric
        found = []
        for generation, group in groupby(sorted(pieces, key=_generation), key=_generation):
            together = [piece for piece in group if piece.draw.places is None or key in piece.draw.places]
            if not together:
                continue
            each = evidence(together, key, metric, self.weights)
            if not each.whole:
                parents = self.expectation.ledger.parents_marks(key, metric)
                predicted = self.expectation.predict(together[-1].genome, generation)
                each = replace(each, parents=parents, predicted=predicted)
            found.append((each, generation))
        return found

    def _by_kind(self, each: Evidence, generation: int) -> Estimate:
        if each.whole:
            return mean(each)
        self._check(each)
        match self.kind:
            case "mean":
                return mean(each)
            case "weighted":
                return weighted(each)
            case "difference":
                return difference(each)
            case "aipw":
                return aipw(each)
            case "blend":
                return blend(each, self._bias(generation))
            case "p_irt" | "gp_irt" | "mp_irt" | "gmp_irt":
                return self._by_irt(self.kind, each, generation)
            case _:
                assert_never(self.kind)

    def _by_irt(self, kind: ByIrt, each: Evidence, generation: int) -> Estimate:
        items = self._parameters(generation)
        match kind:
            case "p_irt":
                return p_irt(each, items, prior=1.0, bias=self._misfit())
            case "gp_irt":
                return gp_irt(each, items, raw=self._raw_share(each, generation), prior=1.0, bias=self._misfit())
            case "mp_irt":
                return mp_irt(each, items, self._abilities(items, each), bias=self._misfit())
            case "gmp_irt":
                return gmp_irt(each, items, self._abilities(items, each))
            case _:
                assert_never(kind)

    def _abilities(self, items: ItemParameters, each: Evidence) -> Floats:
        """The parents', which a candidate's is mixed of."""
        if not each.parents.size:
            raise SpecError(f"estimator {self.kind} needs parents, which have not been scored; use p_irt")
        return parent_abilities(items, each.parents)

    def _misfit(self) -> float:
        """How far a calibration's predictions are off on average; without one that shows in the search alone."""
        calibration = self.expectation.calibration
        return calibration.fit_for(self.expectation.ids).bias if calibration is not None else 0.0

    def _parameters(self, generation: int) -> ItemParameters:
        """Calibrated ones, or else a Rasch model whose difficulties are what siblings found so far."""
        if self.expectation.items is not None:
            return self.expectation.items
        odds = logit(self.expectation.siblings(generation))
        return ItemParameters(np.ones((len(odds), 1)), -odds)

    def _bias(self, generation: int) -> float:
        """The squared bias of estimates by a model alone, as earlier draws show it against unbiased ones."""
        return squared_bias([pair for draw in range(generation) for pair in self._pairs(draw)])

    def _pairs(self, draw: int) -> list[tuple[Estimate, Estimate]]:
        """Unbiased estimates of an earlier draw's candidates, each with the one by a model alone."""
        if draw not in self._kept:
            items = self._parameters(draw) if self.kind == "gp_irt" else None
            pieces = [p for p in self.expectation.ledger.before(draw + 1) if p.draw.generation == draw]
            drawn = [each for piece in pieces for each, _ in self._drawn([piece]) if not each.whole]
            self._kept[draw] = [
                (mean(each), p_irt(each, items, prior=1.0)) if items is not None else (aipw(each), plug_in(each))
                for each in drawn
            ]
        return self._kept[draw]

    def _raw_share(self, each: Evidence, generation: int) -> float:
        """gp-IRT's lambda: from the bias and variance that a calibration knows, or else that this search shows."""
        calibration = self.expectation.calibration
        if calibration is not None:
            fit = calibration.fit_for(self.expectation.ids)
            return fit.share(len(each.places), anchored=each.masses is not None)
        bias, variance = self._bias(generation), mean(each).error ** 2
        return bias / (bias + variance) if bias + variance > 0 else 0.5

    def _check(self, each: Evidence) -> None:
        """Refuse what the estimator cannot do."""
        if each.masses is not None and needs_chance(self.kind):
            raise SpecError(
                f"estimator {self.kind} needs items drawn by chance, and those of this search were chosen; use"
                f" {', '.join(WITHOUT_CHANCE)}"
            )
        if not takes_any_range(self.kind) and not (in_unit(each.marks) and in_unit(each.parents)):
            raise SpecError(
                f"estimator {self.kind} needs marks in [0, 1], and those of {self.expectation.metric!r} of"
                f" task {self.expectation.key!r} are not; use aipw, difference or mean"
            )


def _generation(piece: Piece) -> int:
    return -1 if piece.draw.generation is None else piece.draw.generation


def _precision(each: Evidence) -> float:
    """Of a random sample of this size, up to a factor."""
    count, items = len(each.places), len(each.weights)
    return count / max(items - count, 1e-9)


def _same_items(one: Evidence, other: Evidence) -> bool:
    return len(one.places) == len(other.places) and bool((np.sort(one.places) == np.sort(other.places)).all())


def _minus(one: Evidence, other: Evidence) -> Evidence:
    """Marks of one minus marks of the other, item by item, and what was expected of that."""
    order = np.argsort(other.places)[np.argsort(np.argsort(one.places))]
    expected = None if one.predicted is None or other.predicted is None else one.predicted - other.predicted
    return replace(one, marks=one.marks - other.marks[order], predicted=expected)


def _residual(each: Evidence) -> Estimate:
    return mean(each) if each.predicted is None or each.whole else corrected(each, each.predicted)
