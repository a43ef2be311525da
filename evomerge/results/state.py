"""Where a run stands: its events folded up, one after another."""

from dataclasses import dataclass, field

from evomerge.events import (
    Asked,
    Assigned,
    Closed,
    Confirmed,
    Evaluated,
    Event,
    Extended,
    Opened,
    Told,
)
from evomerge.spec import Budget


@dataclass
class RunState:
    """Everything the journal says, indexed, from the budget of the run file on. `apply` is the only way it changes."""

    budget: Budget
    candidates: dict[int, Asked] = field(default_factory=dict)
    works: dict[int, Assigned] = field(default_factory=dict)
    outcomes: dict[int, Evaluated] = field(default_factory=dict)
    scored: dict[tuple[int, str], Evaluated] = field(default_factory=dict)
    """What came of scoring a candidate on a whole pool, by its number and the pool's name."""
    models: dict[tuple[str, str], Evaluated] = field(default_factory=dict)
    """What came of a recipe on a draw, by the recipe's digest and the draw's JSON."""
    told: list[Told] = field(default_factory=list)
    told_numbers: set[int] = field(default_factory=set)
    confirmed: tuple[int, ...] = ()
    opened: Opened | None = None
    closed: Closed | None = None
    sessions: list[tuple[float, float]] = field(default_factory=list)
    """First and last time stamp of each process that held the run."""

    def apply(self, event: Event) -> None:
        """Take one more event in."""
        match event:
            case Asked():
                self.candidates[event.number] = event
            case Assigned():
                self.works[event.work] = event
            case Evaluated():
                self.outcomes[event.work] = event
                work = self.works[event.work]
                self.scored[event.number, work.draw.pool] = event
                self.models[self._model_key(work)] = event
            case Told():
                self.told.append(event)
                self.told_numbers |= {o.number for o in event.observations if o.number is not None}
            case _:
                self._apply_to_session(event)
        at = getattr(event, "at", None)
        if at is not None and self.sessions:
            self.sessions[-1] = (self.sessions[-1][0], at)

    def _apply_to_session(self, event: Event) -> None:
        match event:
            case Opened():
                self.opened, self.closed, self.budget = event, None, event.budget
                self.sessions.append((event.at, event.at))
            case Extended():
                self.budget = event.budget
            case Confirmed():
                self.confirmed = tuple(dict.fromkeys((*self.confirmed, *event.numbers)))
            case Closed():
                self.closed = event

    def open_works(self) -> list[Assigned]:
        """Works that have not come back."""
        return [work for number, work in self.works.items() if number not in self.outcomes]

    def twin(self, work: Assigned) -> Evaluated | None:
        """The marks that the very same model got on the very same items, if there are any."""
        found = self.models.get(self._model_key(work))
        return found if found is not None and found.marks is not None else None

    def _model_key(self, work: Assigned) -> tuple[str, str]:
        return self.candidates[work.number].digest, work.draw.model_dump_json()

    def counted(self) -> list[int]:
        """Numbers of the candidates that the budget counts: all but baselines outside the space."""
        return [number for number, asked in self.candidates.items() if asked.origin != "baseline"]

    def finished(self) -> list[Evaluated]:
        """What came of the search on counted candidates, in order of their numbers."""
        found = [self.scored.get((number, "search")) for number in self.counted()]
        return [evaluated for evaluated in found if evaluated is not None]

    def seconds(self) -> float:
        """Wall-clock seconds of all sessions together."""
        return sum(last - first for first, last in self.sessions)
