"""Hidden folders that things are made in, beside the place that they are for."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from evomerge.errors import SpecError
from evomerge.files.moves import move

LOCK, NEW, OLD = "evomerge.lock", "new", "old"
"""What a hidden folder holds: the mark that it is ours, what is being made, what that replaces."""
MOST_BYTES = 200
"""Of a name, that the hidden one begins with; names may have 255."""


@contextmanager
def hidden_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for the length of the block, with missing folders above it made.

    What killed processes left there of earlier ones is cleared away. Its lock is held for as long as this process
    lives; it has the mode that new files have here.

    Raises:
        SpecError: another process is writing to `path`.
    """
    made = [parent for parent in path.parents if not os.path.lexists(parent)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        folder, lock = _locked(path)
        try:
            yield folder
        finally:
            _clear(folder)
            os.close(lock)
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # Only while it is empty.


def sweep(path: Path) -> None:
    """Clear away what killed processes left where they were writing to `path`.

    Raises:
        SpecError: a living process is writing there.
    """
    named = re.compile(rf"\.{re.escape(_stem(path))}\.[0-9a-f]{{8}}")
    # What cannot be read is somebody else's, or being cleared away by another process.
    with contextlib.suppress(OSError):
        for folder in [each for each in path.parent.iterdir() if named.fullmatch(each.name)]:
            with contextlib.suppress(OSError):
                _sweep_one(folder, path)


def _sweep_one(folder: Path, path: Path) -> None:
    if folder.is_symlink() or not {each.name for each in folder.iterdir()} <= {LOCK, NEW, OLD}:
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # Killed before it was marked.
        return
    try:
        if os.read(lock, 4096) == _mark(path) and _is_dead(lock, path):
            if os.path.lexists(folder / OLD) and not os.path.lexists(path):
                move(folder / OLD, path)
            _clear(folder)
    finally:
        os.close(lock)


def _is_dead(lock: int, path: Path) -> bool:
    """Whether whoever held the lock is gone, so that it is ours now; where files cannot be locked nobody knows."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SpecError(f"{path} is being written by another process; choose another --out, or wait") from None
    except OSError:
        return False
    return True


def _locked(path: Path) -> tuple[Path, int]:
    """A new hidden folder and its lock; begun again if another process cleared it away in between."""
    while True:
        folder = path.parent / f".{_stem(path)}.{uuid4().hex[:8]}"
        folder.mkdir()
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            continue
        try:
            os.write(lock, _mark(path))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                os.close(lock)
                _clear(folder)
                raise
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)


def _clear(folder: Path) -> None:
    """The mark goes last, so that what is left of a clearing that was cut short is known again."""
    for path in (folder / NEW, folder / OLD):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    for name in (NEW, OLD, LOCK):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _stem(path: Path) -> str:
    return path.name.encode()[:MOST_BYTES].decode(errors="ignore")


def _mark(path: Path) -> bytes:
    return f"evomerge writes {path.name}\n".encode()
