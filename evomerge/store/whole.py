"""Files of a run that are there as a whole or not at all."""

import os
from pathlib import Path

from evomerge.errors import RunError
from evomerge.files import sync


def write_whole(run: Path, folder: str, name: str, content: bytes) -> None:
    """Write a file in a folder of the run, in place of one of that name; it is on disk when this returns.

    Raises:
        RunError: the disk is full or failing.
    """
    path = run / folder / name
    fresh = path.with_name(f".{name}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync(path.parent)
        sync(run)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); make room, then go on with: evomerge resume {run}"
        ) from None
