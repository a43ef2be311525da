"""Response models: the mark that a candidate is expected to get on every item, before it is asked.

They are fitted on what was known before a draw, so that estimates corrected on that draw stay unbiased. Marks in
[0, 1] are modelled in log-odds, others as they are.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import nnls
from scipy.special import expit

from evomerge.estimate.estimators import fitted_shifts, logit
from evomerge.estimate.evidence import Floats
from evomerge.estimate.history import History
from evomerge.estimate.irt import ItemParameters, abilities
from evomerge.estimate.smooth import Surface, fit_surface
from evomerge.values import Genome

SHARES, CHANCES = (0.0, 0.5, 1.0), (0.03, 0.59, 0.99)
"""How often a merge solves an item by the share of its two parents that do: 20,175 answers of 59 published merges."""
CELL_WEIGHT = 8.0
"""Answers that this table counts for, in each pattern of parents' answers."""
SIBLING_WEIGHT = 2.0
"""Answers that the parents' pattern counts for, on each item."""
CANDIDATE_VARIANCE = 1.0
"""Of candidates' common shifts in log-odds: the merges of a search differ more than the siblings of a generation."""
MOST_POINTS = 256
"""Candidates whose genomes are learned from, the latest ones."""
STACK_WEIGHT = 50.0
"""Answers that the starting weights of a stack count for."""


class ResponseModel(Protocol):
    """A fitted expectation."""

    def predict(self, genome: Genome) -> Floats:
        """The expected mark on every item (items,)."""
        ...


@dataclass(frozen=True)
class SameForAll:
    """A model that does not look at the genome."""

    marks: Floats  # (items,)

    def predict(self, genome: Genome) -> Floats:  # noqa: ARG002  The protocol's.
        """The same for every candidate."""
        return self.marks


def parents_pattern(history: History) -> SameForAll:
    """Which parents solve an item says how merges do on it: a table over the patterns, a line for other marks."""
    if not history.parents.size:
        return SameForAll(_overall(history))
    return SameForAll(_table(history) if history.unit else _line(history))


def sibling_history(history: History, prior: SameForAll) -> SameForAll:
    """What other candidates got on an item, the latest counting most, shrunk to `prior`."""
    weight = history.recency
    total = history.by_item(weight * history.marks) + SIBLING_WEIGHT * prior.marks
    return SameForAll(np.asarray(total / (history.by_item(weight) + SIBLING_WEIGHT)))


@dataclass(frozen=True)
class GenotypeShift:
    """Item effects that are everybody's, and a common shift that neighbours in genome space share."""

    effects: Floats  # (items,)  in log-odds where marks lie in [0, 1]
    surface: Surface | None
    unit: bool

    def predict(self, genome: Genome) -> Floats:
        """Effects plus the shift expected at the genome."""
        shift = float(self.surface(np.array([genome]))[0]) if self.surface is not None and genome else 0.0
        return np.asarray(expit(self.effects + shift)) if self.unit else self.effects + shift


def genotype_shift(history: History, items: SameForAll) -> GenotypeShift:
    """Each candidate's shift against `items`, smoothed over genomes."""
    effects = logit(items.marks) if history.unit else items.marks
    if len(history.genomes) < 3 or history.genomes.shape[1] == 0:
        return GenotypeShift(effects, None, history.unit)
    shifts, noise = _shifts(history, effects)
    recent = slice(-MOST_POINTS, None)
    return GenotypeShift(effects, fit_surface(history.genomes[recent], shifts[recent], noise[recent]), history.unit)


@dataclass(frozen=True)
class Ability:
    """The multidimensional 2PL: known item parameters, an ability that neighbours in genome space share."""

    items: ItemParameters
    surfaces: tuple[Surface, ...]  # one a dimension

    def predict(self, genome: Genome) -> Floats:
        """Chances at the ability expected at the genome; without one, at everybody's mean."""
        theta = [float(surface(np.array([genome]))[0]) if genome else surface.mean for surface in self.surfaces]
        return self.items.probabilities(np.array(theta))


def ability(history: History, items: ItemParameters) -> Ability | None:
    """Abilities of all candidates so far by their mode under N(0, I), smoothed over genomes; None before any."""
    if len(history.genomes) < 3 or history.genomes.shape[1] == 0:
        return None
    count = len(history.genomes)
    found = abilities(items, history.candidates, history.places, history.marks, count=count, prior=1.0)
    recent = slice(-MOST_POINTS, None)
    genomes, thetas, covariances = history.genomes[recent], found.theta[recent], found.covariance[recent]
    surfaces = [fit_surface(genomes, thetas[:, d], covariances[:, d, d]) for d in range(thetas.shape[1])]
    return Ability(items, tuple(surfaces))


@dataclass(frozen=True)
class Stack:
    """A mixture of models."""

    models: tuple[ResponseModel, ...]
    shares: Floats  # (models,), sums to 1
    unit: bool

    def predict(self, genome: Genome) -> Floats:
        """The mixture's expectation."""
        mixed = self.shares @ self.each(genome)
        return np.clip(mixed, 0.005, 0.995) if self.unit else mixed

    def each(self, genome: Genome) -> Floats:
        """What every model expects (models, items)."""
        return np.stack([model.predict(genome) for model in self.models])


def stacked(history: History, guesses: tuple[Floats, Floats], items: ItemParameters | None = None) -> Stack:
    """All models, mixed by how well they foretold (Wolpert 1992).

    `guesses` are what the models of earlier draws expected (models, answers) and what came (answers,), each before it
    was known.
    """
    pattern = parents_pattern(history)
    siblings = sibling_history(history, pattern)
    models: list[ResponseModel] = [pattern, siblings, genotype_shift(history, siblings)]
    if items is not None and history.unit:
        models.append(ability(history, items) or pattern)
    return Stack(tuple(models), _shares(*guesses, count=len(models)), history.unit)


def _shares(guessed: Floats, came: Floats, *, count: int) -> Floats:
    """Non-negative weights of the models, by least squares, shrunk to the latter ones', which know most."""
    start = np.array([0.0, 0.4, 0.6] if count == 3 else [0.0, 0.3, 0.4, 0.3])
    scale = float(np.std(came)) * np.sqrt(STACK_WEIGHT) if len(came) else 1.0
    rows = np.vstack([guessed.T, scale * np.eye(count)]) if len(came) else np.eye(count)
    found, _ = nnls(rows, np.concatenate([came, scale * start]) if len(came) else start)
    return np.asarray(found / found.sum() if found.sum() > 0 else start)


def _overall(history: History) -> Floats:
    """With no parents known: everybody's mean, a toss-up before anything."""
    first = 0.5 if history.unit else 0.0
    return np.full(history.items, (history.marks.sum() + first) / (len(history.marks) + 1))


def _table(history: History) -> Floats:
    """The mean of candidates' marks on items of each pattern, shrunk to what published merges did."""
    answers = np.round(history.parents).astype(int)
    _, cells = np.unique(answers, axis=1, return_inverse=True)
    cells = cells.reshape(-1)
    start = np.interp(answers.mean(axis=0), SHARES, CHANCES)
    weight = history.recency
    counts = np.bincount(cells, history.by_item(weight), minlength=cells.max() + 1)
    sums = np.bincount(cells, history.by_item(weight * history.marks), minlength=cells.max() + 1)
    return np.asarray((sums[cells] + CELL_WEIGHT * start) / (counts[cells] + CELL_WEIGHT))


def _line(history: History) -> Floats:
    """The parents' mean, moved and stretched to fit what candidates got."""
    middle: Floats = history.parents.mean(axis=0)
    if len(history.marks) < 3:
        return middle
    x = middle[history.places] - middle.mean()
    weight = history.recency
    spread = float(weight @ x**2) + CELL_WEIGHT * float(np.var(middle)) + 1e-12
    level = float(weight @ history.marks / weight.sum())
    slope = (float(weight @ (x * (history.marks - level))) + CELL_WEIGHT * float(np.var(middle))) / spread
    return np.asarray(level + slope * (middle - middle.mean()))


def _shifts(history: History, effects: Floats) -> tuple[Floats, Floats]:
    """Every candidate's shift (candidates,) by its mode, and the variance it is known with."""
    here = effects[history.places]
    if not history.unit:
        counts = history.by_candidate(np.ones(len(here)))
        gaps = history.marks - here
        means = history.by_candidate(gaps) / counts
        spread = max(float(np.var(gaps - means[history.candidates])), 1e-12)
        return means, spread / counts
    count = len(history.genomes)
    return _unshrunk(*fitted_shifts(here, history.marks, history.candidates, count, variance=CANDIDATE_VARIANCE))


def _unshrunk(shifts: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Shifts and variances as if nothing had been known before: the surface does the shrinking."""
    own = np.maximum(precision - 1 / CANDIDATE_VARIANCE, 0.05)
    return shifts * precision / own, 1 / own
