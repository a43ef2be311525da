"""What experts answer to items of their own objectives, to be imitated: asked for once, before anything is learned."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evomerge.errors import RunError
from evomerge.estimate.loss import mean_probabilities
from evomerge.events import Evaluated
from evomerge.results import scores_of
from evomerge.session import Session
from evomerge.space import unchanged
from evomerge.trial import Draw

Probabilities = tuple[float, ...]


class References:
    """Probabilities of options that stand for what is right of items, by task; `experts` says whose, of each task.

    The journal keeps what the experts answered: whoever takes up the run asks for what is missing.
    """

    def __init__(self, session: Session, experts: Mapping[str, Sequence[str]]) -> None:
        self._session = session
        self._experts = experts
        self.wanted: dict[str, dict[int, Probabilities]] = {}
        """By task, then by place in its search pool; empty before they are known."""

    @property
    def cost(self) -> int:
        """How many items were put to experts for this, beside those that all baselines are put to."""
        works, table = self._session.state.works.values(), self._session.store.table
        return sum(table.count("search", work.draw.places) for work in works if work.purpose == "reference")

    def ask(self) -> bool:
        """Have the experts answer what they did not yet; whether all is known, which takes time and items.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
            RunError: an expert gives no finite numbers.
        """
        missing = self._missing()
        if None in missing.values() or self._count(missing) > self._session.items_left():
            return False
        for name, places in missing.items():
            if places:
                self._have_answered(name, places)
        self._session.settle()
        self._refuse_failed()
        if self._count(self._missing()):
            return False
        self.wanted = {task: self._mean(task, names) for task, names in self._experts.items()}
        return True

    def of(self, places: Mapping[str, Sequence[int]]) -> dict[str, tuple[Probabilities, ...]] | None:
        """Those of items at these places, by task; None if none of the tasks is imitated."""
        found = {task: tuple(self.wanted[task][i] for i in row) for task, row in places.items() if task in self.wanted}
        return found or None

    def _numbers(self) -> dict[str, int]:
        """The experts' numbers, of those that were asked for."""
        wanted = {name for names in self._experts.values() for name in names}
        return {asked.name: n for n, asked in self._session.state.candidates.items() if asked.name in wanted}

    def _missing(self) -> dict[str, dict[str, tuple[int, ...]] | None]:
        """Places by task that each expert did not answer yet; None if the budget was too small to ask it anything."""
        found: dict[str, dict[str, tuple[int, ...]] | None] = {}
        numbers, table = self._numbers(), self._session.store.table
        for task, names in self._experts.items():
            for name in names:
                if name not in numbers:
                    found[name] = None
                    continue
                known = self._answers(numbers[name]).get(task, {})
                places = tuple(i for i in range(len(table.tasks[task].search.ids)) if i not in known)
                row = found.setdefault(name, {})
                if places and row is not None:
                    row[task] = places
        return found

    def _count(self, missing: Mapping[str, Mapping[str, Sequence[int]] | None]) -> int:
        return sum(len(places) for row in missing.values() for places in (row or {}).values())

    def _works(self, number: int) -> list[Evaluated]:
        """What came of putting a model to search items."""
        state = self._session.state
        mine = [work for work in state.works.values() if work.number == number and work.draw.pool == "search"]
        return [state.outcomes[work.work] for work in mine if work.work in state.outcomes]

    def _answers(self, number: int) -> dict[str, dict[int, tuple[float, ...]]]:
        return scores_of(self._works(number), self._session.state, self._session.store)

    def _have_answered(self, name: str, places: Mapping[str, tuple[int, ...]]) -> None:
        session, number = self._session, self._numbers()[name]
        while not session.room:
            session.collect()
        recipe = unchanged(session.store.file.parents, name)
        session.submit(session.assign(number, Draw(pool="search", places=dict(places)), "reference"), recipe)

    def _refuse_failed(self) -> None:
        for name, number in self._numbers().items():
            for event in self._works(number):
                if event.failure is not None:
                    raise RunError(f"{name}, whose answers are to be imitated, has none: {event.failure.reason}")

    def _mean(self, task: str, names: Sequence[str]) -> dict[int, Probabilities]:
        """The probabilities that experts give on average, by place."""
        numbers, rows = self._numbers(), defaultdict[int, list[tuple[float, ...]]](list)
        for name in names:
            for place, scores in self._answers(numbers[name])[task].items():
                rows[place].append(scores)
        return {place: mean_probabilities(each) for place, each in rows.items()}
