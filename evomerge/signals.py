"""Ctrl-C, SIGTERM and a closed terminal, at every instant of a command: it says how to go on, and ends."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from evomerge.runs import is_run
from evomerge.visible import visible

STATUS = 130
"""With which an interrupted command ends."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h\n"
STREAMS = (0, 1, 2)


class _Command:
    """What this process does: a command, or somebody else's program; the run it works on, its terminals."""

    is_ours = False
    interrupted = False
    run: Path | None = None
    terminals: tuple[int, ...] = ()


def heed() -> None:
    """From now on the first of these signals raises KeyboardInterrupt, the next one ends the process at once.

    What the process was told to ignore (by nohup, or in a shell's background) it goes on ignoring. Standard streams
    that are closed lead nowhere, so that no file of a run takes the place of one.
    """
    for number in STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
    _Command.terminals = tuple(number for number in STREAMS if os.isatty(number))
    _Command.is_ours = True
    for signalled in heeded():
        signal.signal(signalled, interrupt)
    sys.excepthook, sys.unraisablehook = _uncaught, _unraisable


def heeded() -> tuple[signal.Signals, ...]:
    """The signals that end a command, but those that this process was told to ignore."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)


def works_on(run: Path) -> None:
    """The command searches in this run folder, which may not be there yet."""
    _Command.run = run


def interrupted() -> bool:
    """Whether one of the signals has raised KeyboardInterrupt, wherever that got to."""
    return _Command.interrupted


def farewell() -> str:
    """What an interrupted command says last."""
    run = _Command.run
    return f"evomerge: stopped; go on with: evomerge resume {run}" if run and is_run(run) else "evomerge: interrupted"


def interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  The signature is the system's.
    """Raise KeyboardInterrupt; a command that was interrupted before is on its way out, and leaves at once."""
    if number == signal.SIGHUP:
        hang_up()
    if _Command.interrupted:
        leave()
    _Command.interrupted = _Command.is_ours
    raise KeyboardInterrupt


def hang_up() -> None:
    """The terminal is gone: what is written to it goes nowhere, and fails no more."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in _Command.terminals:
        os.dup2(nowhere, number)


def leave() -> NoReturn:
    """End the process, whatever it is doing; the journal is whole, as after a kill."""
    cursor = SHOW_CURSOR if 2 in _Command.terminals else b""
    with contextlib.suppress(OSError):
        os.write(2, cursor + f"{visible(farewell())}\n".encode())
    os._exit(STATUS)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Whatever an interrupt was turned into by whom it met, it is one."""
    if _Command.interrupted or issubclass(kind, KeyboardInterrupt):
        leave()
    sys.__excepthook__(kind, error, trace)


def _unraisable(found: "sys.UnraisableHookArgs") -> None:
    """An interrupt that met what cannot pass it on, a finaliser say, would be lost."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        leave()
    sys.__unraisablehook__(found)
