"""On which terms models are opened."""

from collections.abc import Callable
from dataclasses import dataclass

from evomerge.recipe import BASE


def in_run_file(name: str) -> str:
    """Where a run file names a parent."""
    return "models.base" if name == BASE else f"models.experts.{name}"


@dataclass(frozen=True)
class Terms:
    """On which terms models are opened.

    `template` names the one that lends config and tokenizer, if not the first; `called` says where the user named a
    parent, for messages; code that lies in their folders is run only if it is `trusted`.
    """

    template: str | None = None
    called: Callable[[str], str] = in_run_file
    trusted: bool = False


USUAL = Terms()
