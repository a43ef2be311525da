"""A run's marks, read into a ledger as they come."""

from evomerge.estimate import Ledger, Piece
from evomerge.events import Evaluated
from evomerge.results.state import RunState
from evomerge.store import RunStore


def read_into(ledger: Ledger, event: Evaluated, state: RunState, store: RunStore) -> None:
    """Take what came of a work into the ledger, if it was on search items."""
    work, asked = state.works[event.work], state.candidates[event.number]
    if work.draw.pool == "search":
        piece = Piece(event.number, asked.genome or (), work.draw, store.marks(event), work.purpose == "refresh")
        ledger.add(piece, asked.name if asked.name in store.file.parents.names else None)
