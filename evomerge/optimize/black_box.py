"""A search for whoever evaluates candidates himself: numbers out, scores of items in."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from evomerge.errors import SpecError
from evomerge.learn.losses import Key, Loss, Right
from evomerge.learn.sheet import Questions
from evomerge.optimize.surrogate import TOGETHER
from evomerge.optimize.surrogate import Surrogate as Search
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

Point: TypeAlias = tuple[float, ...]
"""Numbers in the order of the genes, each in its range."""
Answer: TypeAlias = int | Sequence[int] | None
"""The right option of an item, or several; None: its scores are those of a reference answer's tokens."""
Scores: TypeAlias = Sequence[Sequence[float]]
"""Of each item log-likelihoods of its options, up to a constant, or log-probabilities of its answer's tokens."""
TASK = "items"


class Surrogate:
    """Proposes points, and learns from the scores of all items that each of them was put to.

    What it proposes follows from what it was made with and from the order of asks and tells, so that telling the same
    again restores it. The model is a Gaussian process over the genes, which suits up to some thirty of them.
    """

    def __init__(
        self,
        genes: Mapping[str, tuple[float, float] | Gene],
        answers: Sequence[Answer] | Mapping[str, Sequence[Answer]],
        *,
        start: Sequence[Sequence[float]] = (),
        seed: int = 0,
    ) -> None:
        """`genes` are ranges by name, `answers` those of the items; by objective, if there are several.

        `start` are points to begin with: what one would try by hand.

        Raises:
            SpecError: there are no genes or items, or a start lies outside the ranges.
        """
        self.genes = tuple(_gene(name, each) for name, each in genes.items())
        named = answers if isinstance(answers, Mapping) else {TASK: answers}
        self._rights = {name: tuple(_right(answer) for answer in each) for name, each in named.items()}
        if not self.genes or not self._rights or not all(self._rights.values()):
            raise SpecError("a search needs genes and items; give at least one of each")
        subjects = [{name: Questions(rights)} for name, rights in self._rights.items()]
        self._search = Search(self.genes, subjects, seed=seed, together=TOGETHER, steady=True)
        self._starts = [self._genome(point) for point in start]
        self._asked: dict[Point, Genome] = {}

    def ask(self, count: int = TOGETHER) -> list[Point]:
        """So many points to evaluate; others may still be awaited."""
        first, self._starts = self._starts[:count], self._starts[count:]
        return [self._point(genome) for genome in (*first, *self._search.ask(count - len(first)))]

    def tell(
        self,
        point: Sequence[float],
        scores: Scores | Mapping[str, Scores] | None,
        rows: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """The scores of a point's items, of all or of those at `rows`; None if it could not be evaluated.

        With several objectives both are told by name. A point need not have been asked for, and may be told again.

        Raises:
            SpecError: items, or their numbers of scores, are not what they were.
        """
        genome = self._asked.get(tuple(point)) or self._genome(point)
        if scores is None:
            self._search.tell([Observation(number=None, genome=genome, utilities=None)])
            return
        by_name = scores if isinstance(scores, Mapping) else {TASK: scores}
        told = {name: _floats(each) for name, each in by_name.items()}
        places = rows if isinstance(rows, Mapping) else {} if rows is None else {TASK: rows}
        found = {name: tuple(places.get(name, range(len(each)))) for name, each in told.items()}
        try:
            utilities = tuple(self._utility(name, found[name], told[name]) for name in self._rights)
            self._search.tell([Observation(number=None, genome=genome, utilities=utilities, rows=found, scores=told)])
        except (KeyError, IndexError, ValueError) as error:
            raise SpecError(f"the scores do not fit the answers: {error}; tell them for each item at rows") from None

    def recommend(self) -> Point | None:
        """With one objective the best point by what is known, tried or not; None before anything is."""
        found = self._search.recommend()
        return self._point(found[0]) if found else None

    def _utility(self, name: str, rows: Sequence[int], scores: Scores) -> float:
        """Minus the mean cross-entropy."""
        if len(rows) != len(scores):
            raise ValueError(f"{len(scores)} items have scores, {len(rows)} were named")
        key = Key.of([self._rights[name][row] for row in rows], [len(each) for each in scores])
        lost, _ = key.losses(key.readings(np.concatenate([np.asarray(each) for each in scores])), Loss())
        return -float(lost.mean())

    def _genome(self, point: Sequence[float]) -> Genome:
        if len(point) != len(self.genes):
            raise SpecError(f"a point has {len(point)} numbers; give {len(self.genes)}, one for each gene")
        return tuple(gene.unit(float(value)) for gene, value in zip(self.genes, point, strict=True))

    def _point(self, genome: Genome) -> Point:
        point = tuple(gene.value(unit) for gene, unit in zip(self.genes, genome, strict=True))
        self._asked[point] = genome
        return point


def _gene(name: str, given: tuple[float, float] | Gene) -> Gene:
    return given if isinstance(given, Gene) else Gene(name=name, low=float(given[0]), high=float(given[1]))


def _right(answer: Answer) -> Right:
    if answer is None:
        return Right()
    return Right(golds=tuple(int(option) for option in np.atleast_1d(answer)))  # Numpy's integers are none of Python's.


def _floats(scores: Scores) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(score) for score in each) for each in scores)
