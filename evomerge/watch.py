"""A command's work, watched: remarks and bars go to standard error, what came of it to standard output."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evomerge.errors import Interrupted

if TYPE_CHECKING:
    from evomerge.assemble import Listener
    from evomerge.results import Results


def console(*, err: bool = False) -> Any:
    """A terminal to print on."""
    from evomerge.terminal import console

    return console(err=err)


def watched(work: "Callable[[Listener], Any]", *, quiet: bool = False) -> Any:
    """Do some work with its remarks on stderr."""
    from evomerge.assemble import QUIET, Listener
    from evomerge.terminal import Ticker

    ticker = Ticker(console(err=True))
    try:
        return work(QUIET if quiet else Listener(ticker.say, ticker.watch))
    finally:
        ticker.close()


def conduct(run: Path, work: "Callable[[Listener], Results]") -> None:
    """Search, resume or confirm, and show what came of it, also when it was stopped half-way."""
    try:
        show_results(watched(work))
    except Interrupted:
        from evomerge.assemble import load

        show_results(load(run))
        raise
    typer.echo(f"next: evomerge report {run}; evomerge export {run} --pick best --out MODEL")


def show_results(results: "Results") -> None:
    """Print what a run has found."""
    from evomerge.terminal import show

    show(console(), results)
