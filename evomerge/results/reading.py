"""A run's marks, read into a ledger as they come."""

from evomerge.estimate import Ledger, Piece, with_losses
from evomerge.events import Assigned, Evaluated, Event
from evomerge.results.state import RunState
from evomerge.store import RunStore


def read_into(ledger: Ledger, event: Event, state: RunState, store: RunStore, *, losses: bool = False) -> None:
    """Take into the ledger what an event says of it: that a draw began, or what came of a work on search items.

    With `losses` they are among the marks, where there are scores.
    """
    if isinstance(event, Assigned) and event.draw.generation is not None:
        ledger.begin(event.draw.generation)
    if not isinstance(event, Evaluated):
        return
    work, asked = state.works[event.work], state.candidates[event.number]
    if work.draw.pool == "search" and work.purpose != "reference":
        marks, again = store.marks(event), work.purpose == "refresh"
        if losses and marks is not None and (scores := store.scores(event)) is not None:
            marks = with_losses(marks, scores, work.draw, store.table)
        piece = Piece(event.number, asked.genome or (), work.draw, marks, again, event.work)
        ledger.add(piece, is_parent=asked.name in store.file.parents.names)
