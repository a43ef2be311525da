"""What the scores of items cost, item by item, with slopes: what a search that learns from every answer makes small."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int64]
Form: TypeAlias = Literal["choice", "imitation", "answer", "whole", "utility"]
"""What an item's scores are: log-likelihoods of options, of which some are right, or whose probabilities are imitated;
log-probabilities of the tokens of a reference answer, or of the whole of it; or one number, the higher the better."""
CERTAIN = -1e-4
"""The log-probability of a token above which it counts as this: there is nothing left to gain."""
HOPELESS = -4.0
"""The lowest log-odds of a token: how much less likely it is still hardly matters, and would outweigh all that does."""


@dataclass(frozen=True)
class Loss:
    """Minus the log-probability of what is right (`nll`), or one minus that probability (`error`) at a `temperature`.

    At a low temperature an option nearly counts as chosen if it has the largest score, and a token if it has more than
    half of the probability: the error nears the one that is counted.
    """

    measure: Literal["nll", "error"] = "nll"
    temperature: float = 1.0


SHARPENING = (Loss(), Loss("error", 0.5), Loss("error", 0.25), Loss("error", 0.12))
"""Losses, one after the other: the first is smooth far from what is looked for, the last is nearly what is counted."""


class Right(NamedTuple):
    """What is right of an item: `golds`, places of options, or `targets`, to imitate; neither: a reference answer.

    Of that there is one score for each token, or one of the `whole`.
    """

    golds: tuple[int, ...] = ()
    targets: tuple[float, ...] = ()
    whole: bool = False

    @property
    def form(self) -> Form:
        """What its scores are."""
        if self.targets:
            return "imitation"
        return "choice" if self.golds else "whole" if self.whole else "answer"


@dataclass(frozen=True, eq=False)
class Key:
    """How the scores of items are read, and what of them is right; scores of an item lie side by side.

    `sizes` (items,) says how many scores each has, `forms` (items,) what they are, `right` (scores,) which options are
    right (1), or with which probability each is to be chosen.
    """

    sizes: Places
    forms: tuple[Form, ...]
    right: Floats

    @classmethod
    def of(cls, rights: Sequence[Right | None], sizes: Sequence[int]) -> "Key":
        """Of items with so many scores each; None for utilities.

        Raises:
            ValueError: there is no such option.
        """
        parts = [_right(*pair) for pair in zip(rights, sizes, strict=True)]
        forms = tuple("utility" if right is None else right.form for right in rights)
        return cls(np.asarray(sizes, dtype=np.int64), forms, np.concatenate([np.empty(0), *parts]))

    def readings(self, scores: Floats) -> Floats:
        """Scores (..., scores) as numbers that are smooth: without what an item's options share, tokens' log-odds."""
        found = np.array(scores, dtype=float)
        for part in self._parts:
            found[..., part.scores] = _read(part, found[..., part.scores])
        return found

    def moved(self, scores: Floats, slopes: Floats) -> Floats:
        """How the readings change (scores, ...) where the scores do so (scores, ...)."""
        found = np.array(slopes, dtype=float)
        for part in self._parts:
            found[part.scores] = _moved(part, scores[part.scores], found[part.scores])
        return found

    def losses(self, readings: Floats, loss: Loss) -> tuple[Floats, Floats]:
        """The loss of each item (..., items), and its slopes by its readings (..., scores)."""
        lost = np.zeros((*readings.shape[:-1], len(self.sizes)))
        slopes = np.zeros(readings.shape)
        for part in self._parts:
            lost[..., part.items], slopes[..., part.scores] = _lost(part, readings[..., part.scores], loss)
        return lost, slopes

    @cached_property
    def _parts(self) -> tuple["_Part", ...]:
        """Items of one form each, for those that occur."""
        return tuple(self._of_forms())

    def _of_forms(self) -> Iterator["_Part"]:
        of_scores = np.repeat(np.arange(len(self.sizes)), self.sizes)
        for form in dict.fromkeys(self.forms):
            there = np.array([each == form for each in self.forms])
            items, scores = np.flatnonzero(there), np.flatnonzero(there[of_scores])
            yield _Part(form, items, scores, self.sizes[items], self.right[scores])


@dataclass(frozen=True, eq=False)
class _Part:
    """Items of one form: their places among all items, and of their scores among all scores."""

    form: Form
    items: Places
    scores: Places
    sizes: Places
    right: Floats

    def summed(self, values: Floats) -> Floats:
        """Sums over the scores of each item: (..., scores) to (..., items)."""
        return np.add.reduceat(values, self._starts, axis=-1)

    def largest(self, values: Floats) -> Floats:
        """The largest of each item."""
        return np.maximum.reduceat(values, self._starts, axis=-1)

    def spread(self, values: Floats) -> Floats:
        """What is said of each item, for each of its scores."""
        return np.repeat(values, self.sizes, axis=-1)

    @cached_property
    def _starts(self) -> Places:
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])


def odds(log_probabilities: Floats, least: float = HOPELESS) -> Floats:
    """The log-odds of tokens."""
    kept = np.minimum(log_probabilities, CERTAIN)
    found: Floats = np.maximum(kept - np.log(-np.expm1(kept)), least)
    return found


def _right(right: Right | None, size: int) -> Floats:
    found = np.zeros(size)
    if right is None:
        return found
    if (right.targets and len(right.targets) != size) or any(not 0 <= gold < size for gold in right.golds):
        raise ValueError(f"an item has {size} scores, which does not fit its key: {right}")
    found[list(right.golds)] = 1.0
    return np.asarray(right.targets, dtype=float) if right.targets else found


def _read(part: _Part, scores: Floats) -> Floats:
    match part.form:
        case "choice" | "imitation":
            return scores - part.spread(part.summed(scores) / part.sizes)
        case "answer":
            return odds(scores)
        case "whole":
            return odds(scores, -np.inf)
        case "utility":
            return scores
        case _:
            assert_never(part.form)


def _moved(part: _Part, scores: Floats, slopes: Floats) -> Floats:
    match part.form:
        case "choice" | "imitation":
            shared = part.summed(slopes.T) / part.sizes
            moved: Floats = slopes - part.spread(shared).T
            return moved
        case "answer" | "whole":
            free = (scores < CERTAIN) & (_read(part, scores) > HOPELESS if part.form == "answer" else True)
            rates = np.where(free, -1 / np.expm1(np.minimum(scores, CERTAIN)), 0.0)
            return slopes * rates[:, None]
        case "utility":
            return slopes
        case _:
            assert_never(part.form)


def _lost(part: _Part, readings: Floats, loss: Loss) -> tuple[Floats, Floats]:
    match part.form:
        case "choice":
            return _choice(part, readings, loss)
        case "imitation":
            return _imitation(part, readings, loss)
        case "answer" | "whole":
            return _answer(part, readings, loss)
        case "utility":
            return -readings, np.full(readings.shape, -1.0)
        case _:
            assert_never(part.form)


def _choice(part: _Part, readings: Floats, loss: Loss) -> tuple[Floats, Floats]:
    """Softmax over options; several may be right."""
    tempered = readings / loss.temperature
    total, among = _log_sum(part, tempered)
    match loss.measure:
        case "error":
            return _missed(part, among, loss.temperature)
        case "nll":
            kept, right = _log_sum(part, np.where(part.right > 0, tempered, -np.inf))
            return total - kept, (among - right) / loss.temperature
        case _:
            assert_never(loss.measure)


def _imitation(part: _Part, readings: Floats, loss: Loss) -> tuple[Floats, Floats]:
    """Cross-entropy with the probabilities that are imitated."""
    tempered = readings / loss.temperature
    total, among = _log_sum(part, tempered)
    match loss.measure:
        case "error":
            return _missed(part, among, loss.temperature)
        case "nll":
            mass = part.summed(part.right)
            lost = mass * total - part.summed(part.right * tempered)
            return lost, (part.spread(mass) * among - part.right) / loss.temperature
        case _:
            assert_never(loss.measure)


def _missed(part: _Part, among: Floats, temperature: float) -> tuple[Floats, Floats]:
    """The probability of what is not right; `among` are those of all options."""
    hit = part.summed(among * part.right)
    return 1 - hit, among * (part.spread(hit) - part.right) / temperature


def _answer(part: _Part, readings: Floats, loss: Loss) -> tuple[Floats, Floats]:
    """All tokens of the answer, one after the other."""
    tempered = readings / loss.temperature
    lost = part.summed(np.logaddexp(0, -tempered))
    doubt = 0.5 * (1 - np.tanh(0.5 * tempered))  # Of each token.
    match loss.measure:
        case "nll":
            return lost, -doubt / loss.temperature
        case "error":
            hit = np.exp(-lost)
            return 1 - hit, -part.spread(hit) * doubt / loss.temperature
        case _:
            assert_never(loss.measure)


def _log_sum(part: _Part, values: Floats) -> tuple[Floats, Floats]:
    """The logarithm of the sum of exponentials of each item, and the share of each of its scores in it."""
    top = part.largest(values)
    shares = np.exp(values - part.spread(top))
    sums = part.summed(shares)
    return top + np.log(sums), shares / part.spread(sums)
