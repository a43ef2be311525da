"""The loop of a search: ask, record, evaluate, record, tell. Resuming is replaying the journal into it."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import ReplayMismatch
from evomerge.estimate import Observer
from evomerge.events import Asked, Assigned, Ended, Evaluated, Told
from evomerge.optimize import RECOMMENDED, Optimizer
from evomerge.recipe import Recipe
from evomerge.results import (
    Stopping,
    refuse_failed_parents,
    refuse_nothing_but_failures,
    was_cut_behind_a_telling,
    with_scores,
)
from evomerge.schedule import More, Schedule
from evomerge.session import Session
from evomerge.space import SearchSpace
from evomerge.trial import Candidate, Draw, Observation, Origin, Purpose, of_optimizer
from evomerge.values import Genome

SAME = 1e-6
"""Largest difference between a gene asked then and now that passes for rounding."""
WHOLE = Draw(pool="search")


@dataclass(frozen=True)
class Parts:
    """What a search is made of.

    `optimizer` makes one, from observations to start from (none: from the prior design). `seeds` are the
    genomes of that design with the names of the fixed recipes they are; `outside` are fixed recipes that the
    space does not hold. `block` candidates share their items where the optimiser knows no generations. With `order` a
    generation is proposed as a whole, and scored in this order of its recipes. With `scores` the optimiser is told
    those of items, too. `parents` are the items that unchanged parents are put to: all of them, so that their answers
    are known to those who estimate.
    """

    space: SearchSpace
    optimizer: Callable[[Sequence[Observation]], Optimizer]
    observer: Observer
    schedule: Schedule
    seeds: Mapping[Genome, str | None]
    outside: Mapping[str, Recipe]
    block: int
    order: Callable[[Recipe], tuple[str, ...]] | None = None
    scores: bool = False
    parents: Draw = WHOLE


class Study:
    """A search in progress. `notes` says in plain words what the user should know of it."""

    def __init__(self, session: Session, parts: Parts) -> None:
        self.session = session
        self.parts = parts
        self.notes: list[str] = []
        self._optimizer = parts.optimizer(())
        self._asked: dict[int, Genome] = {}
        self._orders: dict[int, tuple[str, ...]] = {}
        self._replay()
        self._stopping = Stopping(session.state, session.appraiser)
        if was_cut_behind_a_telling(session.store.events(), session.state):
            self._judge()

    def run(self) -> None:
        """Search until the budget is spent.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, with nothing in flight.
            SpecError, RunError: a parent cannot be scored, or all merges have failed.
        """
        self._refuse_failed(self.session.state.candidates)
        self._resubmit()
        self._ask_outside(self._parents())
        while True:
            self._fill()
            self.session.check_interrupted()
            if self.session.in_flight:
                self._collect()
            elif not self._go_on():
                break
        self._ask_recommended()
        refuse_nothing_but_failures(self.session.state, self._parents(), str(self.session.store.folder))

    def _replay(self) -> None:
        """Bring the optimiser where the journal left it."""
        state, back = self.session.state, Counter[int]()
        try:
            for event in self.session.store.events():
                if isinstance(event, Asked) and of_optimizer(event.origin):
                    self._ask_again(event)
                elif isinstance(event, Evaluated) and state.works[event.work].draw.pool == "search":
                    back[event.number] += 1
                elif isinstance(event, Told):
                    self._optimizer.tell([self._completed(o, back[o.number or 0]) for o in event.observations])
        except ReplayMismatch as mismatch:
            self.notes.append(f"{mismatch}; going on from the recorded results")
            known = [self._completed(o) for told in state.told for o in told.observations]
            self._optimizer = self.parts.optimizer(known)

    def _ask_again(self, event: Asked) -> None:
        asked = self._optimizer.ask(1)
        wanted = event.genome or ()
        if not asked or any(abs(a - b) > SAME for a, b in zip(asked[0], wanted, strict=True)):
            raise ReplayMismatch(
                f"candidate {event.number} is not what the optimiser asks now (other library versions?)"
            )
        # Equal but for rounding (another BLAS, say): the journal's genome counts, the optimiser is told its own.
        self._asked[event.number] = asked[0]

    def _completed(self, observation: Observation, works: int | None = None) -> Observation:
        """An observation with what the journal keeps only once: its genome and, of so many works or of all, scores."""
        if self.parts.scores:
            observation = with_scores(observation, self.session.state, self.session.store, works)
        if observation.genome is not None or observation.number is None:
            return observation
        written = self.session.state.candidates[observation.number].genome
        return observation.model_copy(update={"genome": self._asked.get(observation.number, written)})

    def _resubmit(self) -> None:
        """Hand out again what was in flight when the last process ended, or was to be scored beside the search."""
        state = self.session.state
        for work in state.open_works():
            if work.draw.pool == "search":
                self._submit(work)
        for number in sorted(set(state.candidates) - {work.number for work in state.works.values()} - state.waiting):
            asked = state.candidates[number]
            if asked.origin != "baseline" or asked.name in self.parts.outside:
                self._assign(number, self._draw_for(asked.origin, asked.name))  # Others are the confirmation's.

    def _parents(self) -> tuple[str, ...]:
        """Names of the parents as they are."""
        return self.session.store.file.parents.names

    def _draw_for(self, origin: Origin, name: str | None) -> Draw:
        """A parent is put to the items of parents; everybody else to those of the draw."""
        if name in self._parents():
            return self.parts.parents
        schedule, generation = self.parts.schedule, self._generation()
        return schedule.first(generation) if of_optimizer(origin) else schedule.whole(generation)

    def _generation(self) -> int:
        """The draw of the next new candidate: another one as soon as anybody on the last one was told of."""
        state = self.session.state
        steady = self._optimizer.generation is None
        full = len(state.on_draw) >= self.parts.block if steady else bool(state.on_draw & state.told_numbers)
        return max(0, state.draw + full)

    def _recipe(self, number: int) -> Recipe:
        asked = self.session.state.candidates[number]
        if asked.genome is not None:
            return self.parts.space.decode(asked.genome)
        assert asked.recipe is not None, "a candidate without a genome has its recipe written out"
        return asked.recipe

    def _assign(self, number: int, draw: Draw, purpose: Purpose = "search") -> None:
        origin = self.session.state.candidates[number].origin
        self._submit(self.session.assign(number, draw, "baseline" if origin == "baseline" else purpose))

    def _submit(self, work: Assigned) -> None:
        self.session.submit(work, self._recipe(work.number))

    def _ask_outside(self, names: Collection[str]) -> None:
        """Have fixed recipes that the space does not hold scored beside the search."""
        wanted = [name for name in names if name in self.parts.outside and name not in self.session.state.names]
        for name in wanted:
            draw = self._draw_for("baseline", name)
            if self.session.affordable(self._cost(draw)) >= 1:
                self._make_room()
                self._assign(self._propose(None, self.parts.outside[name], "baseline", name), draw)
        while wanted and self.session.in_flight:
            self._collect()

    def _make_room(self) -> None:
        while not self.session.room:
            self._collect()

    def _propose(self, genome: Genome | None, recipe: Recipe, origin: Origin, name: str | None = None) -> int:
        """Write a new candidate down; its number."""
        generation = len(self.session.state.told)
        number = self.session.next_number
        self.session.propose(
            Candidate(number=number, genome=genome, recipe=recipe, origin=origin, generation=generation, name=name)
        )
        return number

    def _fill(self) -> None:
        """Give every free worker something to do, while the budget lasts."""
        while self.session.room and not self.session.stopping:
            if self._optimizer.generation is None and self._go_on():
                continue  # Whatever came back before a kill is told before anything else is asked.
            waiting = self.session.state.waiting
            if (self._ahead or not waiting) and self._ask(len(waiting)):
                continue
            if not waiting or not self._hand_out(waiting):
                return

    @property
    def _ahead(self) -> bool:
        """Whether a generation is proposed before any of it is scored."""
        return self.parts.order is not None and self._optimizer.generation is not None

    def _ask(self, waiting: int) -> bool:
        """Have a new candidate proposed beside those that are `waiting`; whether there was one."""
        if self.session.state.ended is not None:
            return False
        early = self._parents_to_ask()
        left = self.session.left(self._cost(self.parts.parents) if early else None, waiting)
        if left <= RECOMMENDED:  # The last evaluations are kept back for what the optimiser recommends.
            left -= len(self._optimizer.recommend())
        if left < 1 or not (early or self._parents_known()):
            return False
        asked = self._optimizer.ask(1)
        for genome in asked:
            origin: Origin = "prior" if genome in self.parts.seeds else "search"
            name = self._unused(self.parts.seeds.get(genome))
            self._propose(genome, self.parts.space.decode(genome), origin, name)
        return bool(asked)

    def _judge(self) -> None:
        """Write down that a stopping rule has ended the search, if one has; to be called when a telling is over."""
        if self.session.state.ended is None and (reason := self._stopping.reason()) is not None:
            self.session.record(Ended(at=time.time(), reason=reason))

    def _hand_out(self, waiting: Collection[int]) -> bool:
        """Have the first of those that are waiting scored, if there still are time and items for it."""
        number = min(waiting, key=self._order)
        asked = self.session.state.candidates[number]
        draw = self._draw_for(asked.origin, self.parts.seeds.get(asked.genome or ()))
        if self._ahead and self.session.affordable(self._cost(draw)) < 1:
            return False
        self._assign(number, draw)
        return True

    def _order(self, number: int) -> tuple[tuple[str, ...], int]:
        """A candidate's place among those that are scored together."""
        if self.parts.order is None:
            return (), number
        if number not in self._orders:
            self._orders[number] = self.parts.order(self._recipe(number))
        return self._orders[number], number

    def _parents_known(self) -> bool:
        """Whether draws can be made: no parent that was asked for is still being scored.

        Those in the space are the first that an optimiser asks for; the other fixed recipes come after them.
        """
        state, names = self.session.state, self._parents()
        numbers = [*(work.number for work in state.open_works()), *state.waiting]
        if any(state.candidates[number].name in names for number in numbers):
            return False
        self._ask_outside([name for name in self.parts.outside if name not in names])
        return True

    def _parents_to_ask(self) -> bool:
        """Whether the optimiser has not yet asked for all parents that are in the space."""
        inside = {genome for genome, name in self.parts.seeds.items() if name in self._parents()}
        return bool(inside - self.session.state.genomes)

    def _cost(self, draw: Draw) -> int:
        """How many items a draw has."""
        return self.session.store.table.count("search", draw.places)

    def _unused(self, name: str | None) -> str | None:
        """A fixed recipe's name, unless the confirmation of a smaller budget has used it."""
        return None if name in self.session.state.names else name

    def _collect(self) -> None:
        self._refuse_failed([result.number for result in self.session.collect()])
        if self._optimizer.generation is None:
            self._go_on()
        self.session.check_interrupted()

    def _refuse_failed(self, numbers: Collection[int]) -> None:
        refuse_failed_parents(self.session.state, self._parents(), numbers, str(self.session.store.folder))

    def _go_on(self) -> bool:
        """More items for those who earned them; if nobody did, the optimiser is told. Whether there was anything."""
        busy = {work.number for work in self.session.state.open_works()}
        ready, free = sorted(self.session.state.pending - busy), self.session.room
        if not ready or not free or self.session.stopping:
            return False
        draw = self.session.state.draw
        # Before the first draw only parents have been scored, and it may not be made until all of them have.
        wanted = self.parts.schedule.more(ready, draw) if draw >= 0 else ()
        if self.parts.order is not None:
            wanted = sorted(wanted, key=lambda more: self._order(more.number))
        # Either more work, as much as there are workers for, or news: wherever a process is killed, the next one finds
        # the same to do.
        begun = [more for more in wanted if more.number not in busy][:free]
        begun = [more for more in begun if self._score_more(more)]
        if not begun:
            self._tell_of(ready)
            self._judge()
        return True

    def _score_more(self, more: More) -> bool:
        """Put a candidate to more items, if they can be afforded beside what the optimiser will recommend."""
        cost = self._cost(more.draw)
        kept = len(self._optimizer.recommend())
        if cost > self.session.items_left(kept) or self.session.affordable() <= kept:
            return False
        self._assign(more.number, more.draw, more.purpose)
        return True

    def _tell_of(self, numbers: Sequence[int]) -> None:
        observations = tuple(self.parts.observer.observe(numbers))
        self.session.record(Told(observations=observations))
        self._optimizer.tell([self._completed(o) for o in observations])

    def _ask_recommended(self) -> None:
        """The optimiser's own idea of the best, as the last candidates of the budget."""
        state = self.session.state
        recommended = {n: c.genome for n, c in state.candidates.items() if c.origin == "recommended" and c.genome}
        open_ones = [number for number in recommended if number not in state.told_numbers]
        if recommended and not open_ones and max(recommended) == max(state.counted()):
            return  # They were told of before the last process ended: others would be recommended now.
        for genome in self._optimizer.recommend():
            if genome in recommended.values() or self.session.left() < 1:
                continue
            self.session.check_interrupted()
            self._make_room()
            draw = self._draw_for("recommended", None)
            open_ones.append(self._propose(genome, self.parts.space.decode(genome), "recommended"))
            self._assign(open_ones[-1], draw)
        self.session.settle()
        if open_ones:
            self._tell_of(open_ones)
