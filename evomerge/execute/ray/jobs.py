"""Works in hand: cut in pieces, done again when a worker was lost, given up when too many were."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evomerge.execute.ray.shards import joined
from evomerge.items import ItemTable
from evomerge.trial import Evaluation, Failure, Work

MOST_TRIES = 20
"""After which, for each piece, a candidate is given up even if its nodes were lost, one after another."""


@dataclass(eq=False)
class Job:
    """A work: how many pieces it was cut in, the answers that are back, how often workers were lost over it."""

    work: Work
    pieces: int
    answers: dict[int, Evaluation] = field(default_factory=dict)
    tries: int = 0
    """That came to nothing, whatever was the matter."""
    deaths: int = 0
    """Those of them that the candidate may have brought about."""
    broken: set[str] = field(default_factory=set)
    """Devices that broke over it."""
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
        self._queue: deque[Piece] = deque()

    def __len__(self) -> int:
        """Pieces that nobody has begun."""
        return len(self._queue)

    def add(self, work: Work, shards: Sequence[Work], table: ItemTable) -> None:
        """One more work to do, in these pieces."""
        job, layers = Job(work, len(shards)), len(work.recipe.layers)
        for place, shard in enumerate(shards):
            self._queue.append(Piece(job, place, shard, layers * table.count(shard.draw.pool, shard.draw.places)))

    def next(self, hands: int) -> Iterator[Piece]:
        """Something to do for each of so many workers."""
        for _ in range(min(hands, len(self._queue))):
            yield self._queue.popleft()

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

        With `counts` the candidate may be why. What may be anybody's doing is put up with for longer.
        """
        job = piece.job
        if job.is_over:
            return None
        job.tries += 1
        job.deaths += counts
        if job.deaths < self._deaths and job.tries < max(MOST_TRIES, self._deaths) * job.pieces:
            self._queue.appendleft(piece)
            return None
        times = f"{job.tries} tries came to nothing, the last: " if job.tries > 1 else ""
        failure = Failure(stage="worker", reason=f"{times}{reason}")
        job.answers = {0: Evaluation(work=job.work.id, number=job.work.number, outcome=failure, worker=worker)}
        return self._end(job)

    def _end(self, job: Job) -> Evaluation:
        job.is_over = True
        self._queue = deque(piece for piece in self._queue if piece.job is not job)
        return joined([job.answers[place] for place in sorted(job.answers)])
