"""A command's work, watched: remarks and bars go to standard error, what came of it to standard output."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evomerge.errors import EvomergeError, Interrupted
from evomerge.visible import visible

if TYPE_CHECKING:
    from evomerge.assemble import Elsewhere, Listener
    from evomerge.fitness import EstimatorKind
    from evomerge.results import Results


def say(*lines: object, err: bool = False) -> None:
    """Print lines; what they quote of others neither ends them nor commands the terminal."""
    # Where nobody can be told any more, a command still ends as it would have.
    with contextlib.suppress(*([OSError] if err else [])):
        typer.echo("\n".join(map(visible, lines)), err=err)


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
        return work(QUIET if quiet else Listener(ticker.say, ticker.watch, ticker.enter))
    finally:
        ticker.close()


def elsewhere(device: str | None, executor: Any, address: str | None, workers: int | None) -> "Elsewhere":
    """What a command line says of where to search."""
    from evomerge.assemble import Elsewhere

    return Elsewhere(device, executor and executor.value, address, workers)


def conduct(run: Path, work: "Callable[[Listener], Results]") -> None:
    """Search, resume or confirm, and show what came of it, also when it was stopped half-way."""
    try:
        show_results(watched(work), run)
    except Interrupted:
        from evomerge.assemble import load

        with contextlib.suppress(EvomergeError):
            show_results(load(run), run)
        raise
    say(f"next: evomerge report {run}; evomerge export {run} --pick best --out MODEL")


def read(run: Path, estimator: "EstimatorKind | None" = None) -> "Results":
    """The results in a run folder; what was dropped of them is said, unless it is being written."""
    from evomerge.assemble import load

    results = load(run, estimator)
    if results.store.notes and results.status != "running":
        say(*results.store.notes, err=True)
    return results


def show_results(results: "Results", run: Path) -> None:
    """Print what a run has found, and which of its stages that is."""
    from evomerge.assemble import stage_of
    from evomerge.terminal import show

    show(console(), results)
    keys = stage_keys(run, results)
    if keys:
        more = f"; go on with: evomerge resume {run}" if keys["state"] == "stopped" else ""
        say(f"{run}: {stage_of(run)}{more}")


def stage_keys(run: Path, results: "Results") -> dict[str, Any]:
    """What `show --json` says otherwise, or besides, of a run in stages; nothing of another."""
    from evomerge.assemble import stage_of
    from evomerge.store import RunStore

    stage = stage_of(run)
    if stage is None:
        return {}
    state = results.status
    if state == "finished" and stage.number < stage.of:
        state = "running" if RunStore.in_use(run) else "stopped"
    return {"state": state, "stage": stage._asdict()}
