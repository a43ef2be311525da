"""One process's hold on a run: what it writes down, hands out and collects."""

import sys
import time
from collections.abc import Callable, Sequence

from evomerge.errors import Interrupted
from evomerge.estimate import Appraiser, Grader, Ledger, with_loss
from evomerge.events import Asked, Assigned, Evaluated, Event, Incident, Stamped, Workers
from evomerge.execute import Executor
from evomerge.recipe import Coefficients, Recipe
from evomerge.results import AS_BEFORE, RunState, read_into
from evomerge.store import RunStore
from evomerge.trial import Candidate, Draw, Evaluation, Failure, Purpose, Seconds, Work

Watch = Callable[["Session", Evaluation], None]


class Session:
    """Keeps journal, state, ledger and executor in step: nothing is handed out that is not written down first.

    `watch` is called with every result, once it is written down. `appraiser` says what the marks so far are worth.
    """

    def __init__(
        self,
        store: RunStore,
        executor: Executor,
        watch: Watch = lambda *_: None,
        *,
        ahead: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `ahead` works may be handed out that no worker is free for yet; the longest begin first.

        `clock` counts seconds and is never set back or forward; it may stand still while the machine sleeps.
        """
        self.store = store
        self.executor = executor
        self._ahead = ahead
        self._backlog: list[Work] = []
        self.state = RunState(store.file.spec.budget, store.file.spec.models.beforehand)
        self._is_stopped = self._nobody_works = False
        optimizer = store.file.spec.chosen
        self._scored = optimizer is not None and (optimizer.wants_scores or optimizer.told == "loss")
        self._watch = watch
        self._in_flight: set[int] = set()
        self._is_over = False
        self._clock, self._started = clock, clock()
        grader, told = Grader(store.file.spec.fitness, store.table), optimizer.told if optimizer is not None else None
        losses = with_loss(grader.fitness, store.table) if told == "loss" else ()
        self.appraiser = Appraiser(grader, Ledger(store.table), store.calibration, losses=losses)
        for event in store.events():
            self._apply(event)
        self._seconds_before = self.state.seconds()

    def record(self, event: Event) -> None:
        """Write an event down, with how long this process has had the run, and take it in."""
        if isinstance(event, Stamped):
            event = event.model_copy(update={"elapsed": self._elapsed()})
        self.store.append(event)
        self._apply(event)

    def _apply(self, event: Event) -> None:
        self.state.apply(event)
        read_into(self.appraiser.ledger, event, self.state, self.store, losses=bool(self.appraiser.losses))

    @property
    def next_number(self) -> int:
        """The number of the next candidate."""
        return len(self.state.candidates)

    @property
    def stopping(self) -> bool:
        """Whether the user, or the system, asked for an end."""
        return self._is_stopped

    def stop(self) -> None:
        """Begin nothing any more."""
        self._is_stopped = True

    @property
    def in_flight(self) -> int:
        """Works handed out and not yet back."""
        return len(self._in_flight) + len(self._backlog)

    @property
    def room(self) -> int:
        """How many more works may be handed out now."""
        return sys.maxsize if self._ahead else max(0, self.executor.free - len(self._backlog))

    def seconds(self) -> float:
        """Seconds of this session and of all before it."""
        return self._seconds_before + self._elapsed()

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def accelerator_hours(self) -> float:
        """Hours that accelerators were held in this session and in all before it."""
        return self.state.accelerator_seconds(self._elapsed()) / 3600

    @property
    def workers(self) -> int:
        """How many can work at a time, at least one."""
        standing = self.state.standing
        return max(1, standing.ready if standing is not None else self.executor.free + len(self._in_flight))

    def time_left(self) -> float | None:
        """Seconds until the first of the budgets in time is spent; None if there is none."""
        budget, limits = self.state.budget, []
        if budget.seconds is not None:
            limits.append(budget.seconds - self.seconds())
        if budget.accelerator_hours is not None:
            each = self.state.processes[-1].accelerators if self.state.processes else 1.0
            hours = budget.accelerator_hours - self.accelerator_hours()
            limits.append(hours * 3600 / (self.workers * each))  # They are held whether or not they work.
        return min(limits, default=None)

    def left(self, items: int | None = None, waiting: int = 0) -> int:
        """How many more candidates the budget allows, what is in flight, or `waiting`, counted as spent.

        See `affordable`.
        """
        most = self.state.budget.evaluations
        affordable = max(0, self.affordable(items) - waiting)
        return affordable if most is None else max(0, min(affordable, most - len(self.state.counted())))

    def affordable(self, items: int | None = None) -> int:
        """How many more evaluations of so many items (as a candidate has, if left out) time and items allow."""
        limits = [sys.maxsize]
        if self.state.budget.item_evaluations is not None:
            limits.append(self.items_left() // (self._each() if items is None else items))
        if (seconds := self.time_left()) is not None:
            limits.append(self._affordable_in(seconds))
        return max(0, min(limits))

    def items_left(self, kept: int = 0) -> int:
        """How many more search items may be put to models; those in flight and `kept` candidates count as spent."""
        most = self.state.budget.item_evaluations
        return sys.maxsize if most is None else most - self.state.items(self.store.table) - kept * self._each()

    def _each(self) -> int:
        """Items that a candidate is put to."""
        return self.store.file.spec.fitness.estimator.drawn(self.store.table)

    def _affordable_in(self, seconds: float) -> int:
        """Evaluations that may begin and will end within so many seconds, if each takes as long as the mean so far.

        Every worker does so many one after another; what is in flight is among them.
        """
        if self._is_over or seconds <= 0:
            return 0
        price = self.state.price()
        if not price.seconds:
            return max(0, self.executor.free - len(self._backlog))
        at_once = max(1, int(self.workers / price.workers))
        return at_once * int(seconds / price.seconds) - self.in_flight

    def propose(self, candidate: Candidate, coefficients: Coefficients | None = None) -> None:
        """Write a new candidate down; `coefficients` are those that its recipe names as a side file."""
        if coefficients is not None:
            self.store.side_files.keep(coefficients)
        self.record(
            Asked(
                number=candidate.number,
                origin=candidate.origin,
                genome=candidate.genome,
                digest=candidate.recipe.digest(),
                recipe=candidate.recipe if candidate.genome is None else None,
                name=candidate.name,
                generation=candidate.generation,
                tradeoff=candidate.tradeoff,
            )
        )

    def assign(self, number: int, draw: Draw, purpose: Purpose) -> Assigned:
        """Write a work item down."""
        assigned = Assigned(work=len(self.state.works), number=number, draw=draw, purpose=purpose)
        self.record(assigned)
        return assigned

    def submit(self, assigned: Assigned, recipe: Recipe) -> None:
        """Hand out a work item that is written down; if the same model was scored on the same draw, answer it."""
        number, twin = assigned.number, self.state.twin(assigned)
        if twin is not None:
            known = {"work": assigned.work, "number": number, "worker": AS_BEFORE}
            spent = {"seconds": Seconds(), "layer_evaluations": None, "at": time.time()}
            self.record(twin.model_copy(update={**known, **spent}))
            return
        scored = self._scored and assigned.draw.pool == "search"
        work = Work(
            id=assigned.work,
            number=number,
            recipe=recipe,
            draw=assigned.draw,
            purpose=assigned.purpose,
            coefficients=self.store.side_files.read(recipe),
            scored=scored,
        )
        self._backlog.append(work)
        self._backlog.sort(key=self._length, reverse=True)
        self._feed()

    def _length(self, work: Work) -> int:
        """How long a work takes, as far as can be told from what it is: items times layers."""
        return self.store.table.count(work.draw.pool, work.draw.places) * len(work.recipe.layers)

    def _feed(self) -> None:
        """Have workers that are free begin what was handed out, unless the user wants to stop.

        What there is no time left for is not begun any more. It stays assigned, for a session with a larger budget.
        """
        while self._backlog and not self.stopping and self.executor.free:
            work = self._backlog.pop(0)
            if work.draw.pool == "search" and not self._is_time():
                continue
            self._in_flight.add(work.id)
            self.executor.submit(work)

    def _is_time(self) -> bool:
        """Whether there is time for one more work of the search; once there was none, there is none any more."""
        left = self.time_left()
        if left is not None and left < max(self.state.price().seconds, 1e-9):
            self._is_over = True
        return not self._is_over

    def collect(self, timeout: float | None = None) -> list[Evaluation]:
        """Wait for results and write them down."""
        self._feed()
        found, was_stopped = [], self.stopping
        for result in self.executor.wait(timeout) if self._in_flight else ():
            if not isinstance(result, Evaluation):
                self.record(self._with_backlog(result))
                # What workers said before the stop does not count.
                self._nobody_works = was_stopped and isinstance(result, Workers) and result.busy == 0
                continue
            self.record(self._kept(result))
            self._in_flight.discard(result.work)
            found.append(result)
            self._feed()
            self._watch(self, result)
        return found

    def _kept(self, result: Evaluation) -> Evaluated:
        """A result as the journal has it, once its scores and marks are written down."""
        failure = result.outcome if isinstance(result.outcome, Failure) else None
        scores = result.scores if self._scored and failure is None else None
        return Evaluated(
            work=result.work,
            number=result.number,
            scores=None if not scores else self.store.keep_scores(scores),
            marks=None if isinstance(result.outcome, Failure) else self.store.keep_marks(result.outcome),
            failure=failure,
            seconds=result.seconds,
            layer_evaluations=result.layer_evaluations,
            worker=result.worker,
            at=time.time(),
        )

    def lessons(self, works: Sequence[Work]) -> list[Evaluation]:
        """What workers learn from items, in the order of the works; nothing of it is written down.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, when what had begun is back.
        """
        waiting, found = list(works), dict[int, Evaluation]()
        while len(found) < len(works):
            while waiting and self.executor.free and not self.stopping:
                self.executor.submit(waiting.pop(0))
            if self.stopping and len(works) - len(waiting) == len(found):
                raise Interrupted("stopped between two steps")
            for result in self.executor.wait(None):
                if isinstance(result, Evaluation):
                    found[result.work] = result
                else:
                    self.record(self._with_backlog(result))
        return [found[work.id] for work in works]

    def _with_backlog(self, news: Incident | Workers) -> Incident | Workers:
        """What the executor says, and of the workers what else is waiting for them here."""
        if isinstance(news, Workers):
            return news.model_copy(update={"queued": news.queued + len(self._backlog)})
        return news

    def settle(self) -> None:
        """Collect until nothing is in flight.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, when what had begun is back.
        """
        while self.in_flight:
            self.collect()
            self.check_interrupted()

    def check_interrupted(self) -> None:
        """Stop here if the user, or the system, asked for it.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
        """
        if self.stopping and (not self._in_flight or self._nobody_works):
            raise Interrupted("stopped between two candidates")
