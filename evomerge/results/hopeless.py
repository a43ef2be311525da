"""Failures that end a search: of a parent, whose answers all estimates lean on, and of every merge."""

from collections.abc import Collection

from evomerge.errors import RunError
from evomerge.results.state import RunState
from evomerge.trial import Failure


def refuse_failed_parents(state: RunState, parents: Collection[str], numbers: Collection[int], where: str) -> None:
    """Stop if a parent is among the candidates of these numbers, and could not be scored.

    Raises:
        SpecError, RunError: one is, for which no lost worker is to blame.
    """
    for number in numbers:
        name, failure = state.candidates[number].name, _failure(state, number)
        if name in parents and failure is not None and failure.stage != "worker":
            raise failure.error(f"{where}: {name}")


def refuse_nothing_but_failures(state: RunState, parents: Collection[str], where: str) -> None:
    """Stop where all merges have failed: nothing was found, and parents alone would pass for the result.

    Raises:
        RunError: they have.
    """
    scored = [number for number in state.counted() if (number, "search") in state.scored]
    unmerged = {asked.digest for asked in state.candidates.values() if asked.name in parents}
    merges = [number for number in scored if state.candidates[number].digest not in unmerged]
    failures = [failure for number in merges if (failure := _failure(state, number)) is not None]
    if failures and len(failures) == len(merges):
        reason = failures[0].reason
        raise RunError(f"{where}: all {len(merges)} merges have failed, the first of them by this: {reason}")


def _failure(state: RunState, number: int) -> Failure | None:
    """What went wrong with a candidate in the search, if anything did."""
    outcomes = state.scored.get((number, "search"), ())
    return next((each.failure for each in outcomes if each.failure is not None), None)
