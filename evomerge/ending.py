"""The end of a command: one line and an exit status, whatever happened."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from evomerge import signals
from evomerge.errors import EvomergeError, Interrupted
from evomerge.watch import say


def end(command: Callable[[], object]) -> None:
    """Do a command, and end it with the line and the exit status that `docs/cli.md` lists, whatever happens."""
    try:
        _done(command)
    except EvomergeError as error:
        if signals.interrupted() and not isinstance(error, Interrupted):
            _say_last(signals.farewell(), signals.STATUS)
        _told(error)
    except KeyboardInterrupt:
        _say_last(signals.farewell(), signals.STATUS)
    except BrokenPipeError:
        _hush()
        sys.exit(0)
    except OSError as error:
        from evomerge.files import fault

        _hush()
        _told(fault(error))


def _done(command: Callable[[], object]) -> None:
    """Do it, and undo what Typer makes of an interrupt and of a reader that left."""
    try:
        command()
    except SystemExit as ended:
        if signals.interrupted() or ended.code == signals.STATUS:
            raise KeyboardInterrupt from None
        if ended.code == 1:  # Typer's own ends are 0 and 2.
            raise BrokenPipeError from None
        if sys.stdout is not None:
            sys.stdout.flush()
        raise


def _told(error: EvomergeError) -> NoReturn:
    _say_last(f"evomerge: {error}", error.exit_status)


def _say_last(line: str, status: int) -> NoReturn:
    say(line, err=True)
    sys.exit(status)


def _hush() -> None:
    """Standard output takes nothing any more, nor shall it at the interpreter's end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
