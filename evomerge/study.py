"""The loop of a search: ask, record, evaluate, record, tell. Resuming is replaying the journal into it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import ReplayMismatch
from evomerge.estimate import Observer
from evomerge.events import Asked, Assigned, Told
from evomerge.optimize import RECOMMENDED, Optimizer
from evomerge.recipe import Recipe
from evomerge.schedule import Ask, Schedule
from evomerge.session import Session
from evomerge.space import SearchSpace
from evomerge.trial import Candidate, Draw, Observation, Origin
from evomerge.values import Genome

SAME = 1e-6
"""Largest difference between a gene asked then and now that passes for rounding."""
SEARCH = Draw(pool="search")


@dataclass(frozen=True)
class Parts:
    """What a search is made of.

    `optimizer` makes one, from observations to start from (none: from the prior design). `seeds` are the
    genomes of that design with the names of the fixed recipes they are; `outside` are fixed recipes that the
    space does not hold.
    """

    space: SearchSpace
    optimizer: Callable[[Sequence[Observation]], Optimizer]
    observer: Observer
    schedule: Schedule
    seeds: Mapping[Genome, str | None]
    outside: Mapping[str, Recipe]


class Study:
    """A search in progress. `notes` says in plain words what the user should know of it."""

    def __init__(self, session: Session, parts: Parts) -> None:
        self.session = session
        self.parts = parts
        self.notes: list[str] = []
        self._optimizer = parts.optimizer(())
        self._untold: list[int] = []
        self._asked: dict[int, Genome] = {}
        self._replay()

    def run(self) -> None:
        """Search until the budget is spent.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, with nothing in flight.
        """
        self._resubmit()
        self._ask_baselines()
        while True:
            self._fill()
            self.session.check_interrupted()
            if self.session.in_flight:
                self._collect()
            elif not self._tell():
                break
        self._ask_recommended()

    def _replay(self) -> None:
        """Bring the optimiser where the journal left it."""
        state = self.session.state
        try:
            for event in self.session.store.events():
                if isinstance(event, Asked) and event.origin in ("prior", "search"):
                    self._ask_again(event)
                elif isinstance(event, Told):
                    self._optimizer.tell([self._completed(o) for o in event.observations])
        except ReplayMismatch as mismatch:
            self.notes.append(f"{mismatch}; going on from the recorded results")
            self._optimizer = self.parts.optimizer(
                [self._completed(o) for told in state.told for o in told.observations]
            )
        self._untold = [number for number in self._searched() if (number, "search") in state.scored]

    def _searched(self) -> list[int]:
        """Candidates that the optimiser asked for and has not been told of."""
        candidates = self.session.state.candidates
        asked = [number for number, c in candidates.items() if c.origin in ("prior", "search")]
        return [number for number in asked if number not in self.session.state.told_numbers]

    def _ask_again(self, event: Asked) -> None:
        asked = self._optimizer.ask(1)
        wanted = event.genome or ()
        if not asked or any(abs(a - b) > SAME for a, b in zip(asked[0], wanted, strict=True)):
            raise ReplayMismatch(
                f"candidate {event.number} is not what the optimiser asks now (other library versions?)"
            )
        # Equal but for rounding (another BLAS, say): the journal's genome counts, the optimiser is told its own.
        self._asked[event.number] = asked[0]

    def _completed(self, observation: Observation) -> Observation:
        """An observation with its genome, which the journal keeps only once."""
        if observation.genome is not None or observation.number is None:
            return observation
        written = self.session.state.candidates[observation.number].genome
        return observation.model_copy(update={"genome": self._asked.get(observation.number, written)})

    def _resubmit(self) -> None:
        """Hand out again what was in flight when the last process ended, or proposed and not yet handed out."""
        state = self.session.state
        for work in state.open_works():
            if work.draw.pool == "search":
                self._submit(work)
        for number in sorted(set(state.candidates) - {work.number for work in state.works.values()}):
            if state.candidates[number].origin != "baseline" or state.candidates[number].name in self.parts.outside:
                self._assign(number, SEARCH)  # Other baselines are the confirmation's.

    def _recipe(self, number: int) -> Recipe:
        asked = self.session.state.candidates[number]
        if asked.genome is not None:
            return self.parts.space.decode(asked.genome)
        assert asked.recipe is not None, "a candidate without a genome has its recipe written out"
        return asked.recipe

    def _assign(self, number: int, draw: Draw) -> None:
        origin = self.session.state.candidates[number].origin
        self._submit(self.session.assign(number, draw, "baseline" if origin == "baseline" else "search"))

    def _submit(self, work: Assigned) -> None:
        self.session.submit(work, self._recipe(work.number))
        state = self.session.state
        if work.work in state.outcomes and state.candidates[work.number].origin in ("prior", "search"):
            self._untold.append(work.number)  # The same model was scored before: its marks are there at once.

    def _ask_baselines(self) -> None:
        """Fixed recipes outside the space are scored beside the search, before it."""
        known = {asked.name for asked in self.session.state.candidates.values()}
        for name, recipe in self.parts.outside.items():
            if name not in known and self.session.affordable() >= 1:
                while not self.session.executor.free:
                    self._collect()
                self._propose(None, recipe, "baseline", name)
                self._assign(self.session.next_number - 1, SEARCH)
        while self.session.in_flight:
            self._collect()

    def _propose(self, genome: Genome | None, recipe: Recipe, origin: Origin, name: str | None = None) -> None:
        generation = len(self.session.state.told)
        number = self.session.next_number
        self.session.propose(
            Candidate(number=number, genome=genome, recipe=recipe, origin=origin, generation=generation, name=name)
        )

    def _fill(self) -> None:
        """Give every free worker something to do, while the budget lasts."""
        while (free := self.session.executor.free) and not self.session.stopping:
            if self._optimizer.generation is None:
                self._tell()  # Whatever came back before a kill is told before anything else is asked.
            left = self.session.left()
            if left <= RECOMMENDED:  # The last evaluations are kept back for what the optimiser recommends.
                left -= len(self._optimizer.recommend())
            errands = self.parts.schedule.next(min(free, max(0, left)))
            begun = [self._begin(errand) for errand in errands]
            if not any(begun):
                return

    def _begin(self, errand: object) -> bool:
        """Do what the schedule wants done; whether there was anything to do."""
        if not isinstance(errand, Ask):
            raise TypeError(f"the schedule wants {errand!r}, which this loop does not know")
        for genome in (asked := self._optimizer.ask(1)):
            prior = genome in self.parts.seeds
            recipe = self.parts.space.decode(genome)
            self._propose(genome, recipe, "prior" if prior else "search", self._unused(self.parts.seeds.get(genome)))
            self._assign(self.session.next_number - 1, errand.draw)
        return bool(asked)

    def _unused(self, name: str | None) -> str | None:
        """A fixed recipe's name, unless the confirmation of a smaller budget has used it."""
        used = name is not None and any(asked.name == name for asked in self.session.state.candidates.values())
        return None if used else name

    def _collect(self) -> None:
        for evaluation in self.session.collect():
            if self.session.state.candidates[evaluation.number].origin in ("prior", "search"):
                self._untold.append(evaluation.number)
        if self._optimizer.generation is None:
            self._tell()
        self.session.check_interrupted()

    def _tell(self) -> bool:
        """Tell the optimiser all that is known and not told yet, in order of numbers; whether there was anything."""
        numbers, self._untold = sorted(self._untold), []
        if numbers:
            self._tell_of(numbers)
        return bool(numbers)

    def _tell_of(self, numbers: Sequence[int]) -> None:
        scored = self.session.state.scored
        evaluations = [self.session.evaluation(scored[number, "search"]) for number in numbers]
        observations = tuple(self.parts.observer.observe(evaluations))
        self.session.record(Told(observations=observations))
        self._optimizer.tell([self._completed(o) for o in observations])

    def _ask_recommended(self) -> None:
        """The optimiser's own idea of the best, as the last candidates of the budget."""
        state = self.session.state
        recommended = {n: c.genome for n, c in state.candidates.items() if c.origin == "recommended"}
        open_ones = [number for number in recommended if number not in state.told_numbers]
        for genome in self._optimizer.recommend():
            if genome in recommended.values() or self.session.left() < 1:
                continue
            self.session.check_interrupted()
            while not self.session.executor.free:
                self._collect()
            self._propose(genome, self.parts.space.decode(genome), "recommended")
            open_ones.append(self.session.next_number - 1)
            self._assign(open_ones[-1], SEARCH)
        while self.session.in_flight:
            self._collect()
        if open_ones:
            self._tell_of(open_ones)
