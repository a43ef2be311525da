"""What the events of a run refer to: candidates, works, items, marks and scores, each of which must be there."""

from collections.abc import Iterable, Mapping
from typing import assert_never, get_args

from evomerge.events import (
    Asked,
    Assigned,
    Closed,
    Confirmed,
    Created,
    Ended,
    Evaluated,
    Event,
    Extended,
    Incident,
    Learned,
    MarksAt,
    Opened,
    ScoresAt,
    Told,
    Workers,
)
from evomerge.items import COST, TEXT, Cost, ItemTable
from evomerge.store.blocks import MARK, Block, Blocks, counted, size_of
from evomerge.trial import Draw

Wanted = Mapping[str, frozenset[str]]
"""Metrics that a fitness reads, by the task as marks name it."""


class Account:
    """Takes the events of a journal in, and refuses what refers to something that is not there.

    Lines of formats 1 and 2 are not tied to one another. By this a missing one is found.
    """

    def __init__(self, table: ItemTable, wanted: Wanted) -> None:
        self._table = table
        self._wanted = wanted
        self._candidates = 0
        self._works: list[Assigned] = []
        self._open: dict[int, Assigned] = {}
        self._scored: set[int] = set()
        self.marks, self.scores = Blocks("marks"), Blocks("scores")

    def take(self, event: Event, line: int) -> None:
        """Take one more event in.

        Raises:
            ValueError: it refers to what is not there.
        """
        match event:
            case Asked():
                self._expect("candidate", event.number, self._candidates)
                self._candidates += 1
            case Assigned():
                self._expect("work", event.work, len(self._works))
                self._known(event.number)
                self._draw(event.draw)
                self._works.append(event)
                self._open[event.work] = event
            case Evaluated():
                self._evaluated(event, line)
            case Told():
                self._results(observation.number for observation in event.observations)
            case Confirmed():
                self._results(event.numbers)
            case Created() | Opened() | Incident() | Workers() | Learned() | Ended() | Extended() | Closed():
                pass
            case _:
                assert_never(event)

    def in_flight(self) -> int:
        """Bytes of marks that a process which died may have written without the line that refers to them."""
        return MARK * max((self._most(work.draw) for work in self._open.values()), default=0)

    @property
    def is_under_way(self) -> bool:
        """Whether a process that died may have written anything without the line that refers to it."""
        return bool(self._open)

    def _most(self, draw: Draw) -> int:
        rows = (len(self._table.tasks[t].metrics) * self._count(draw, t) for t in self._table.tasks)
        return sum(rows) + self._count(draw, TEXT) + len(get_args(Cost))

    def _count(self, draw: Draw, task: str) -> int:
        if draw.places is None:
            return 0 if task == TEXT else len(self._table.tasks[task].pool(draw.pool).ids)
        return len(draw.places.get(task, ()))

    def _expect(self, what: str, number: int, expected: int) -> None:
        if number != expected:
            raise ValueError(f"it begins {what} {number}, {expected} is the next: a line is missing, or there twice")

    def _known(self, number: int) -> None:
        if not 0 <= number < self._candidates:
            raise ValueError(f"candidate {number} was not proposed before it: a line is missing")

    def _results(self, numbers: Iterable[int | None]) -> None:
        for number in numbers:
            if number is not None and number not in self._scored:
                raise ValueError(f"candidate {number} has no result before it: a line is missing")

    def _draw(self, draw: Draw) -> None:
        for task, places in (draw.places or {}).items():
            held = self._table.held_by(draw.pool, task)
            if places and not 0 <= min(places) <= max(places) < held:
                raise ValueError(f"its draw has items of {task} that the run has not")

    def _evaluated(self, event: Evaluated, line: int) -> None:
        work = self._open.pop(event.work, None)
        if work is None or work.number != event.number:
            raise ValueError(f"work {event.work} was not under way before it: a line is missing, or there twice")
        self._scored.add(event.number)
        if event.marks is not None:
            self._fits(event.marks, work.draw)
            self._take(self.marks, event.marks, line)
        if event.scores is not None:
            self._fit_scores(event.scores, work.draw)
            self._take(self.scores, event.scores, line)

    @staticmethod
    def _take(blocks: Blocks, at: MarksAt | ScoresAt, line: int) -> None:
        if min(counted(at), default=0) < 0:
            raise ValueError(f"it counts less than no {blocks.what}")
        blocks.take(Block(at.offset, size_of(at), at.crc, line))

    def _fits(self, marks: MarksAt, draw: Draw) -> None:
        """See that there is a mark for every item of a draw, by every metric that is read."""
        for task, metrics in self._wanted.items():
            count = 1 if task == COST else self._count(draw, task)
            rows = marks.counts.get(task, {})
            for metric in metrics:
                if rows.get(metric, 0) != count:
                    raise ValueError(f"its marks are not those of the items of {task} that the run has")

    def _fit_scores(self, scores: ScoresAt, draw: Draw) -> None:
        """See that there are scores of every item of a draw whose task gives any."""
        for name, task in self._table.tasks.items():
            if self._count(draw, name) != len(scores.counts.get(name, ())) and task.pool(draw.pool).golds:
                raise ValueError(f"its scores are not those of the items of {name} that the run has")
