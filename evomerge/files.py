"""Files and folders that are there whole or not at all, also after a power cut."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in place of what was there."""
    fresh = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder`, which is missing or empty, when the block ends well."""
    fresh = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        fresh.mkdir(parents=True)
        yield fresh
        # Killed before this line there is nothing, after it there is a whole folder.
        fresh.replace(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_there(path: str | Path) -> bool:
    """Whether there is such a file or folder; no for a name that none can have, or one that cannot be looked for."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; see `is_there`."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def at_home(path: str) -> Path:
    """A path with `~` in place; where nobody has that name, as it is, to be missed when it is opened."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
