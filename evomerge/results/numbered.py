"""One candidate of a run by its number, and what it is called."""

from collections.abc import Mapping

from evomerge.errors import SpecError
from evomerge.events import Asked
from evomerge.results.row import Row


def numbered(rows: Mapping[int, Row], what: str, run: object) -> Row | None:
    """The candidate that `number:N` means, or `failed:N` if it failed; None if it is other words.

    Raises:
        SpecError: there is none of that number, or it failed and the words do not say so.
    """
    word, _, number = what.rpartition(":")
    if word not in ("number", "failed") and not what.isdecimal():
        return None
    if not number.isdecimal() or int(number) not in rows:
        raise SpecError(f"{what}: the run has no candidate of that number; `evomerge show {run} --csv` lists them")
    row = rows[int(number)]
    if row.failure is not None and word != "failed":
        why = f"{row.failure.stage}: {row.failure.reason}"
        raise SpecError(f"{what}: candidate {row.number} failed ({why}); failed:{row.number} takes it all the same")
    if row.failure is None and word == "failed":
        raise SpecError(f"{what}: candidate {row.number} did not fail; give number:{row.number}")
    return row


def called(asked: Asked) -> str:
    """What a candidate without a name is called; a learned one by the weights of the objectives but the last."""
    if asked.tradeoff is None:
        return f"candidate {asked.number}"
    return " ".join(["learned", *(f"{weight:.2f}" for weight in list(asked.tradeoff.values())[:-1])])
