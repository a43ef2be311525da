"""The marks of a search, as estimators want them: by draw, by task, with the chances they were drawn with."""

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from evomerge.estimate.evidence import Evidence, Floats, in_unit
from evomerge.estimate.history import History
from evomerge.items import ItemTable
from evomerge.trial import Draw, Marks
from evomerge.values import Genome


@dataclass(frozen=True)
class Piece:
    """What came of putting some items to a candidate; no marks if it failed."""

    number: int
    genome: Genome
    draw: Draw
    marks: Marks | None
    again: bool = False
    """Whether it was scored once more, as an elite."""
    work: int = 0
    """The id of the work that it came of."""
    arrays: dict[tuple[str, ...], Floats] = field(default_factory=dict, compare=False, repr=False)
    """What was asked for as an array, kept: every draw's models look at all pieces before it."""

    def size(self) -> int:
        """How many drawn items it took; those of a whole pool are no sample."""
        return sum(map(len, (self.draw.places or {}).values()))


class Ledger:
    """All pieces of a run, and what its parents answered on all items.

    They are given back in the order of their works, so that sums come out the same whoever was done first.
    """

    def __init__(self, table: ItemTable) -> None:
        self.table = table
        self.pieces: list[Piece] = []
        self._parents: list[tuple[int, Marks]] = []
        self.drawn = {False: 0, True: 0}
        """Drawn items that candidates were put to, and those that elites were put to again."""
        self._by_number: dict[int, list[Piece]] = {}
        self._parents_marks: dict[tuple[str, str, int], Floats] = {}
        self._begun: dict[int, int] = {}

    def add(self, piece: Piece, *, is_parent: bool = False) -> None:
        """Take a piece in; of a parent as it is, if the candidate is one."""
        self.pieces.append(piece)
        self.drawn[piece.again] += piece.size()
        insort(self._by_number.setdefault(piece.number, []), piece, key=_work)
        if is_parent and piece.marks is not None and piece.draw.places is None:
            insort(self._parents, (piece.work, piece.marks), key=itemgetter(0))

    def begin(self, generation: int) -> None:
        """A draw is being put to models: what comes from now on was not known before it, whatever it came of."""
        self._begun.setdefault(generation, len(self.pieces))

    def of(self, number: int) -> Sequence[Piece]:
        """The pieces of a candidate."""
        return self._by_number.get(number, ())

    def items(self, number: int) -> int:
        """How many search items a candidate has marks on; one that was drawn for it twice counts twice."""
        marked = [piece.draw for piece in self.of(number) if piece.marks is not None]
        return sum(self.table.count(draw.pool, draw.places) for draw in marked)

    def candidates(self) -> Iterator[tuple[int, Sequence[Piece]]]:
        """The pieces of every candidate that the space holds."""
        for number in sorted(self._by_number):
            if self._by_number[number][0].genome:
                yield number, self._by_number[number]

    def on(self, generation: int) -> dict[int, list[Piece]]:
        """The pieces of a draw by candidate of the space, those of elites scored again left out."""
        found: dict[int, list[Piece]] = {}
        for piece in sorted(self.pieces, key=_work):
            if piece.draw.generation == generation and piece.genome and not piece.again:
                found.setdefault(piece.number, []).append(piece)
        return found

    def parents_marks(self, key: str, metric: str) -> Floats:
        """What parents got on all search items of a task (parents, items)."""
        name = key, metric, len(self._parents)
        if name not in self._parents_marks:
            rows = [marks[key][metric] for _, marks in self._parents]
            empty = np.empty((0, len(self.table.tasks[key].search.ids)))
            self._parents_marks[name] = np.array(rows) if rows else empty
        return self._parents_marks[name]

    def before(self, generation: int) -> list[Piece]:
        """Pieces of earlier draws, of candidates that the space holds, that have marks and came before a draw began."""
        known = sorted(self.pieces[: self._begun.get(generation)], key=_work)
        drawn = (p for p in known if p.draw.generation is not None and p.draw.generation < generation)
        return [piece for piece in drawn if piece.marks is not None and piece.genome]

    def history(self, key: str, metric: str, generation: int) -> History:
        """What is known of a task before a draw."""
        pieces = [piece for piece in self.before(generation) if key in (piece.draw.places or {})]
        numbers = list(dict.fromkeys(piece.number for piece in pieces))
        rows = {number: row for row, number in enumerate(numbers)}
        genomes = {piece.number: piece.genome for piece in pieces}
        sizes = [len(_places(piece, key)) for piece in pieces]
        parents = self.parents_marks(key, metric)
        marks = _joined([_marks(piece, key, metric) for piece in pieces])
        ages = np.array([generation - (piece.draw.generation or 0) - 1 for piece in pieces], dtype=float)
        return History(
            items=parents.shape[1],
            parents=parents,
            genomes=np.array([genomes[number] for number in numbers]) if numbers else np.empty((0, 0)),
            candidates=np.repeat(np.array([rows[piece.number] for piece in pieces], dtype=np.int64), sizes),
            places=_joined([_places(piece, key) for piece in pieces]).astype(np.int64),
            marks=marks,
            ages=np.repeat(ages, sizes),
            unit=in_unit(parents) and in_unit(marks),
        )


def _work(piece: Piece) -> int:
    return piece.work


def evidence(pieces: Sequence[Piece], key: str, metric: str, weights: Floats) -> Evidence:
    """Pieces of one draw put together: the chance of each item is that of being in as much of it as there is."""
    first = pieces[0].draw
    if first.places is None:
        marks = np.asarray(pieces[0].marks[key][metric] if pieces[0].marks else ())
        return Evidence(weights, np.arange(len(weights)), marks, np.ones(len(weights)))
    places = _joined([_places(piece, key) for piece in pieces]).astype(np.int64)
    share = len(places) / first.of[key] if first.of else 1.0
    chances = _joined([_rows(piece.draw.probabilities, piece, key) for piece in pieces])
    masses = None
    if first.masses is not None:
        masses = _joined([_rows(piece.draw.masses, piece, key) for piece in pieces])
        masses = masses / masses.sum()
    marks = _joined([_marks(piece, key, metric) for piece in pieces])
    return Evidence(weights, places, marks, chances * share, masses=masses)


def _places(piece: Piece, key: str) -> Floats:
    if (key,) not in piece.arrays:
        piece.arrays[key,] = np.asarray((piece.draw.places or {}).get(key, ()), dtype=float)
    return piece.arrays[key,]


def _rows(rows: Mapping[str, Sequence[float]] | None, piece: Piece, key: str) -> Floats:
    """What a draw says of each of its items; of those that it is silent about, certainty."""
    return np.ones(len(_places(piece, key))) if rows is None else np.asarray(rows.get(key, ()), dtype=float)


def _marks(piece: Piece, key: str, metric: str) -> Floats:
    if (key, metric) not in piece.arrays:
        piece.arrays[key, metric] = np.asarray((piece.marks or {}).get(key, {}).get(metric, ()), dtype=float)
    return piece.arrays[key, metric]


def _joined(arrays: Sequence[Floats]) -> Floats:
    return np.concatenate(arrays) if arrays else np.empty(0)
