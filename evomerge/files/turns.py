"""Turns of processes that want to make the same thing: one makes it, the others wait and find it there."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "turn.lock"


@contextmanager
def turn(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Have `folder` to oneself for the length of the block; it is made if it is missing.

    `wait` is called before another process is waited for. Where files cannot be locked nobody waits for anybody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
