"""Where a run stands: its events folded up, one after another."""

from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

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
    Opened,
    Stamped,
    Told,
    Workers,
)
from evomerge.items import ItemTable
from evomerge.results.process import Process, worker_names
from evomerge.spec import Budget
from evomerge.trial import LayerEvaluations, of_optimizer
from evomerge.values import Genome


class Price(NamedTuple):
    """What a candidate takes: so many seconds, of so many workers at once. No seconds before any is known."""

    seconds: float
    workers: float


@dataclass
class RunState:
    """Everything the journal says, indexed, from the budget of the run file on. `apply` is the only way it changes.

    `beforehand` search items were put to models before the run began, for RegMean.
    """

    budget: Budget
    beforehand: int = 0
    candidates: dict[int, Asked] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    genomes: set[Genome] = field(default_factory=set)
    """Those of all candidates."""
    waiting: set[int] = field(default_factory=set)
    """Candidates of the optimiser that were not handed out yet."""
    works: dict[int, Assigned] = field(default_factory=dict)
    open: dict[int, Assigned] = field(default_factory=dict)
    """Works that have not come back."""
    outcomes: dict[int, Evaluated] = field(default_factory=dict)
    scored: dict[tuple[int, str], list[Evaluated]] = field(default_factory=dict)
    """What came of scoring a candidate, in turn, by its number and the pool's name."""
    pending: set[int] = field(default_factory=set)
    """Candidates of the optimiser with results that it was not told of."""
    draw: int = -1
    """The latest draw of search items, and the candidates that came new to it."""
    on_draw: set[int] = field(default_factory=set)
    models: dict[tuple[str, str], Evaluated] = field(default_factory=dict)
    """What came of a recipe on a draw, by the recipe's digest and the draw's JSON."""
    told: list[Told] = field(default_factory=list)
    told_numbers: set[int] = field(default_factory=set)
    learned: list[Learned] = field(default_factory=list)
    confirmed: tuple[int, ...] = ()
    opened: Opened | None = None
    closed: Closed | None = None
    ended: Ended | None = None
    """Why the search was over before its budget was spent, if it was."""
    processes: list[Process] = field(default_factory=list)
    """Those that held the run, in turn."""
    incidents: list[Incident] = field(default_factory=list)
    # Sums that are asked for before every candidate, each with how much of the journal it covers.
    _counted: list[int] = field(default_factory=list)
    _paid: dict[bool, tuple[float, float, int]] = field(default_factory=dict)
    """Of works on whole pools (True) and on draws: seconds, workers, and how many works there were."""
    _items: tuple[int, int] = (0, 0)

    def apply(self, event: Event) -> None:
        """Take one more event in."""
        self._pass(event)
        match event:
            case Asked():
                self._apply_asked(event)
            case Assigned():
                self._apply_assigned(event)
            case Evaluated():
                self._apply_evaluated(event)
            case Told():
                self.told.append(event)
                numbers = {o.number for o in event.observations if o.number is not None}
                self.told_numbers |= numbers
                self.pending -= numbers
            case Opened() | Workers() | Incident() | Closed():
                self._apply_to_process(event)
            case Created():
                pass  # It is about files, and verified when they are read.
            case Learned() | Ended() | Extended() | Confirmed():
                self._apply_to_search(event)
            case _:
                assert_never(event)

    def _pass(self, event: Event) -> None:
        """Take in how much time has passed."""
        if isinstance(event, Opened):
            self.processes.append(Process(event))
        if isinstance(event, Stamped) and self.processes:
            self.processes[-1].passes(event)

    def _apply_asked(self, asked: Asked) -> None:
        self.candidates[asked.number] = asked
        self.names |= {asked.name} if asked.name is not None else set()
        self.genomes |= {asked.genome} if asked.genome is not None else set()
        self._counted += [asked.number] if asked.origin != "baseline" else []
        self.waiting |= {asked.number} if of_optimizer(asked.origin) else set()

    def _apply_assigned(self, work: Assigned) -> None:
        self.works[work.work] = self.open[work.work] = work
        self.waiting.discard(work.number)
        generation = work.draw.generation
        if generation is not None and generation > self.draw:
            self.draw, self.on_draw = generation, set()
        if generation == self.draw and work.purpose == "search":
            self.on_draw.add(work.number)

    def _apply_evaluated(self, event: Evaluated) -> None:
        self.outcomes[event.work] = event
        self.open.pop(event.work, None)
        work, origin = self.works[event.work], self.candidates[event.number].origin
        if self.processes:
            self.processes[-1].works(event)
        if work.purpose == "reference":
            return
        before = self.scored.setdefault((event.number, work.draw.pool), [])
        if not before and work.draw.pool == "search" and origin != "baseline":
            self._pay(event, whole=work.draw.places is None)
        before.append(event)
        self.models[self._model_key(work)] = event
        if work.draw.pool == "search" and of_optimizer(origin):
            self.pending.add(event.number)

    def _pay(self, event: Evaluated, *, whole: bool) -> None:
        """Remember what a candidate took, if anybody worked on it."""
        workers, spent = len(worker_names(event)), event.seconds.merge + event.seconds.score
        if workers and spent > 0:
            seconds, hands, count = self._paid.get(whole, (0.0, 0.0, 0))
            self._paid[whole] = seconds + spent / workers, hands + workers, count + 1

    def _apply_to_process(self, event: Opened | Workers | Incident | Closed) -> None:
        match event:
            case Opened():
                self.opened, self.closed, self.budget = event, None, event.budget
            case Workers():
                for process in self.processes[-1:]:
                    process.stands(event)
            case Incident():
                self.incidents.append(event)
            case Closed():
                self.closed = event
            case _:
                assert_never(event)

    def _apply_to_search(self, event: Learned | Ended | Extended | Confirmed) -> None:
        match event:
            case Learned():
                self.learned.append(event)
            case Ended():
                self.ended = event
            case Extended():
                self.budget, self.ended = event.budget, None
            case Confirmed():
                self.confirmed = tuple(dict.fromkeys((*self.confirmed, *event.numbers)))
            case _:
                assert_never(event)

    def open_works(self) -> list[Assigned]:
        """Works that have not come back."""
        return list(self.open.values())

    def twin(self, work: Assigned) -> Evaluated | None:
        """The marks that the very same model got on the very same items, if there are any."""
        found = self.models.get(self._model_key(work))
        return found if found is not None and found.marks is not None else None

    def _model_key(self, work: Assigned) -> tuple[str, str]:
        return self.candidates[work.number].digest, work.draw.model_dump_json()

    def counted(self) -> list[int]:
        """Numbers of the candidates that the budget counts: all but baselines outside the space."""
        return self._counted

    def finished(self) -> list[Evaluated]:
        """What first came of the search on counted candidates, in order of their numbers."""
        found = [self.scored.get((number, "search")) for number in self.counted()]
        return [evaluated[0] for evaluated in found if evaluated]

    def price(self) -> Price:
        """What a candidate takes on average: as those on draws did, or before these as those on whole pools."""
        seconds, workers, count = self._paid.get(False) or self._paid.get(True) or (0.0, 1.0, 1)
        return Price(seconds / count, workers / count)

    @property
    def standing(self) -> Workers | None:
        """How the workers of the latest process stood last, if it said so."""
        return self.processes[-1].standing if self.processes else None

    def items(self, table: ItemTable) -> int:
        """How many search items were put to models, those in flight and those of RegMean included.

        Of slopes each counts three.
        """
        covered, found = self._items
        new = (self.works[number].draw for number in range(covered, len(self.works)))
        found += sum(table.count("search", draw.places) for draw in new if draw.pool == "search")
        self._items = len(self.works), found
        return self.beforehand + found + (self.learned[-1].items if self.learned else 0)

    def layer_evaluations(self) -> LayerEvaluations:
        """Those of the whole run."""
        counted = [e.layer_evaluations for e in self.outcomes.values() if e.layer_evaluations is not None]
        return LayerEvaluations(run=sum(each.run for each in counted), reused=sum(each.reused for each in counted))

    def seconds(self) -> float:
        """Seconds of all sessions together."""
        return sum(process.last for process in self.processes)

    def held(self) -> float:
        """Seconds that workers were there, of all of them and all sessions together."""
        return sum(process.held() for process in self.processes)

    def accelerator_seconds(self, elapsed: float | None = None) -> float:
        """Seconds that accelerators were held in all sessions; in the latest for `elapsed` seconds, or all known."""
        before = sum(process.accelerator_seconds() for process in self.processes[:-1])
        return before + (self.processes[-1].accelerator_seconds(elapsed) if self.processes else 0.0)
