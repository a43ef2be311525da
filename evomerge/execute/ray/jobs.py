"""Works in hand: cut in pieces, done again when a worker was lost, given up when too many were."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from evomerge.execute.ray.shards import joined, shards_of
from evomerge.items import ItemTable
from evomerge.trial import Evaluation, Failure, Work


@dataclass(eq=False)
class Job:
    """A work: how many pieces it was cut in, the answers that are back, what workers died of."""

    work: Work
    pieces: int = 0
    answers: dict[int, Evaluation] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    is_over: bool = False


@dataclass(frozen=True, eq=False)
class Piece:
    """What one worker is handed: some items of a work, or all of them. `size` is items times layers."""

    job: Job
    place: int
    work: Work
    size: int


class Jobs:
    """What there is to do: pieces to be done again come first, then works in the order they came in."""

    def __init__(self, deaths: int) -> None:
        """`deaths` is how many workers may be lost over a work."""
        self._deaths = deaths
        self._new: deque[Job] = deque()
        self._again: deque[Piece] = deque()

    def __len__(self) -> int:
        """Works and pieces that nobody has begun."""
        return len(self._new) + len(self._again)

    def add(self, work: Work) -> None:
        """One more work to do."""
        self._new.append(Job(work))

    def next(self, hands: int, table: ItemTable, *, split: bool) -> Iterator[Piece]:
        """Something to do for each of so many workers; with `split` works are cut where there are more of these."""
        while self._again and hands:
            yield self._again.popleft()
            hands -= 1
        each = max(1, hands // len(self._new)) if split and self._new else 1
        while self._new and hands:
            job = self._new.popleft()
            works = shards_of(job.work, table, min(each, hands))
            job.pieces, hands = len(works), hands - len(works)
            layers = len(job.work.recipe.layers)
            for place, work in enumerate(works):
                yield Piece(job, place, work, layers * table.count(work.draw.pool, work.draw.places))

    def answered(self, piece: Piece, evaluation: Evaluation) -> Evaluation | None:
        """Take an answer in; the whole work's, if that is over with it."""
        job = piece.job
        if job.is_over:
            return None
        job.answers[piece.place] = evaluation
        if isinstance(evaluation.outcome, Failure) or len(job.answers) == job.pieces:
            return self._end(job)
        return None

    def lost(self, piece: Piece, reason: str, worker: str, *, counts: bool) -> Evaluation | None:
        """A try came to nothing: the piece is to be done again, unless too many did; the failure then.

        With `counts` the candidate may be why.
        """
        job = piece.job
        if job.is_over:
            return None
        job.deaths += [reason] if counts else []
        if len(job.deaths) < self._deaths:
            self._again.append(piece)
            return None
        times = f"{len(job.deaths)} tries came to nothing, the last: " if len(job.deaths) > 1 else ""
        failure = Failure(stage="worker", reason=f"{times}{reason}")
        job.answers = {0: Evaluation(work=job.work.id, number=job.work.number, outcome=failure, worker=worker)}
        return self._end(job)

    def _end(self, job: Job) -> Evaluation:
        job.is_over = True
        self._again = deque(piece for piece in self._again if piece.job is not job)
        return joined([job.answers[place] for place in sorted(job.answers)])
