"""The process of a command line, `evomerge` or `python -m evomerge`."""

import io
import os
import sys

from evomerge import signals


def run() -> None:
    """Do what the command line says; it may be interrupted while everything else is still being loaded."""
    signals.heed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from evomerge.cli import main

    try:
        main()
    except SystemExit as end:
        if end.code == signals.STATUS:  # All is said, and what the interpreter does at its end can be interrupted too.
            sys.stdout.flush()
            os._exit(signals.STATUS)
        raise


if __name__ == "__main__":
    run()
