"""Held-out confirmation: finalists, parents and fixed recipes on items that the search never saw."""

import time
from collections.abc import Sequence

from evomerge.events import Confirmed
from evomerge.items import TEXT, ItemTable
from evomerge.results import Results
from evomerge.session import Session
from evomerge.space import fixed_recipes
from evomerge.trial import Candidate, Draw

CONFIRM = Draw(pool="confirm")
REPORT = Draw(pool="report")


def confirm(session: Session, top: int) -> None:
    """Score the search's best `top` candidates (or its front), all parents and fixed recipes on the confirm items.

    Where there are report items, the candidate that is best then, and all of these, are scored on them last. What has
    been scored already is not scored again; fixed recipes that the budget left no room for are.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM.
    """
    _propose_missing(session)
    results = Results(session.store)
    finalists = results.choose_finalists(top)
    _score(session, results, finalists, *_draws(session.store.table))
    if set(finalists) - set(session.state.confirmed):
        session.record(Confirmed(at=time.time(), numbers=tuple(finalists)))
    if any(task.report.ids for task in session.store.table.tasks.values()):
        chosen = Results(session.store)
        _score(session, chosen, [chosen.best.number] if chosen.best else [], REPORT)


def _draws(table: ItemTable) -> list[Draw]:
    """What finalists and baselines are put to: the held-out items, and plain text, if there is any."""
    if table.text is None:
        return [CONFIRM]
    return [CONFIRM, Draw(pool="confirm", places={TEXT: tuple(range(len(table.text.confirm)))})]


def _score(session: Session, results: Results, numbers: Sequence[int], *draws: Draw) -> None:
    """Put these candidates and all baselines to draws, those that were not yet; a model to all, one after the other."""
    state = session.state
    assigned = [(work.number, work.draw) for work in state.works.values() if work.draw in draws]
    for number in dict.fromkeys((*numbers, *(row.number for row in results.baselines if row.failure is None))):
        for draw in draws:
            if (number, draw) not in assigned:
                session.assign(number, draw, "confirm")
    for work in state.open_works():
        if work.draw in draws:
            while not session.room:
                session.collect()
            session.check_interrupted()
            session.submit(work, results.recipe(work.number))
    session.settle()
    session.check_interrupted()


def _propose_missing(session: Session) -> None:
    known = {asked.name for asked in session.state.candidates.values()}
    for name, recipe in fixed_recipes(session.store.file.parents).items():
        if name not in known:
            number = session.next_number
            session.propose(Candidate(number=number, genome=None, recipe=recipe, origin="baseline", name=name))
