"""Everything that a search was told, as one table: a row for each candidate, a column for each score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.losses import Floats, Key, Right
from evomerge.values import Genome

Answers: TypeAlias = Mapping[str, Mapping[int, Sequence[float]]]
"""Task, then place of an item among the task's, then its scores."""


@dataclass(frozen=True)
class Questions:
    """Items of a task: what is right of each, and how much each counts (sum 1; empty: all alike)."""

    rights: tuple[Right, ...]
    weights: tuple[float, ...] = ()


Subject: TypeAlias = Mapping[str, Questions]
"""What an objective is learned from: items by task, all tasks alike; until their scores are told, its utilities."""


class Place(NamedTuple):
    """Where a column is from: of which objective, which task and item; its utility has no task."""

    subject: int
    task: str | None
    item: int = 0


@dataclass(frozen=True, eq=False)
class Known:
    """The table at one time: genomes (candidates, genes), readings (candidates, scores; NaN: not told) and their key.

    `subjects` (items,) says which objective an item is of, `weights` (items,) how much it counts in it (sum 1).
    """

    genomes: Floats
    readings: Floats
    key: Key
    subjects: NDArray[np.int64]
    weights: Floats


class Sheet:
    """Takes in what is told of candidates, in any order; what is told again of an item counts instead."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = subjects
        self._rows: dict[int | Genome, dict[int, Sequence[float]]] = {}
        self._genomes: dict[int | Genome, Genome] = {}
        self._columns: dict[Place, int] = {}
        self._sizes: list[int] = []

    @property
    def candidates(self) -> int:
        """Candidates of which something is known."""
        return len(self._rows)

    @property
    def genomes(self) -> list[Genome]:
        """Theirs, in the order in which they were told of first."""
        return list(self._genomes.values())

    @property
    def items(self) -> int:
        """Items that scores were told of."""
        return sum(place.task is not None for place in self._columns)

    def put(self, name: int | Genome, genome: Genome, utilities: Sequence[float], answers: Answers) -> None:
        """Take in what is known of a candidate, under its number or its genome. Items without finite scores are none.

        Raises:
            ValueError: an item is unknown, or has another number of scores than it had.
        """
        row = self._rows.setdefault(name, {})
        self._genomes[name] = genome
        for index, subject in enumerate(self._subjects):
            row[self._column(Place(index, None), 1)] = (utilities[index],)
            for task in subject:
                for item, scores in answers.get(task, {}).items():
                    if len(scores) and np.isfinite(scores).all():
                        row[self._column(Place(index, task, item), len(scores))] = scores

    def known(self) -> Known:
        """The table as it is now."""
        with_scores = {place.subject for place in self._columns if place.task is not None}
        kept = {at: p for p, at in self._columns.items() if (p.task is None) != (p.subject in with_scores)}
        sizes = [self._sizes[at] for at in kept]
        key = Key.of([self._right(place) for place in kept.values()], sizes)
        starts = dict(zip(kept, np.concatenate([[0], np.cumsum(sizes)]).tolist(), strict=False))
        table = np.full((len(self._rows), sum(sizes)), np.nan)
        for line, row in zip(table, self._rows.values(), strict=True):
            for at, scores in row.items():
                if at in starts:
                    line[starts[at] : starts[at] + len(scores)] = scores
        subjects = np.array([place.subject for place in kept.values()], dtype=np.int64)
        genomes = np.array(list(self._genomes.values()))
        return Known(genomes, key.readings(table), key, subjects, self._weights(list(kept.values())))

    def _weights(self, places: Sequence[Place]) -> Floats:
        """How much each column counts in its objective: as much as its item in its task, and all tasks alike."""
        groups = {pair: at for at, pair in enumerate(dict.fromkeys((place.subject, place.task) for place in places))}
        tasks = Counter(subject for subject, _ in groups)
        owner = np.array([groups[place.subject, place.task] for place in places])
        weights = np.array([self._weight(place) for place in places])
        sums = np.bincount(owner, weights)[owner] * np.array([tasks[place.subject] for place in places])
        shares: Floats = weights / np.maximum(sums, np.finfo(float).tiny)
        return shares

    def _weight(self, place: Place) -> float:
        weights = self._subjects[place.subject][place.task].weights if place.task is not None else ()
        return weights[place.item] if weights else 1.0

    def _column(self, place: Place, size: int) -> int:
        """Where an item's scores stand."""
        if place not in self._columns:
            self._right(place)
            self._columns[place] = len(self._sizes)
            self._sizes.append(size)
        at = self._columns[place]
        if self._sizes[at] != size:
            raise ValueError(f"item {place.item} of {place.task} has {size} scores, it had {self._sizes[at]} before")
        return at

    def _right(self, place: Place) -> Right | None:
        if place.task is None:
            return None
        rights = self._subjects[place.subject][place.task].rights
        if not 0 <= place.item < len(rights):
            raise ValueError(f"{place.task} has no item {place.item}; its last one is {len(rights) - 1}")
        return rights[place.item]
