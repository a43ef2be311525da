"""Files and folders that are there whole or not at all, also after a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import RunError
from evomerge.files.faults import told
from evomerge.files.moves import move, move_beside, swap, sync
from evomerge.files.scratch import LOCK, NEW, OLD, hidden_folder
from evomerge.files.target import Target, state

APPEARED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


@contextmanager
def new_folder(target: Target, *, rescue: bool = False) -> Iterator[Path]:
    """A hidden folder that becomes the target when the block ends well, and vanishes when it does not.

    With `rescue` it stays under a name beside the target, if something came to be there meanwhile.

    Raises:
        SpecError: the target is no place to write to.
        RunError: the disk is full, or something came to be at the target, or what was to be replaced has changed.
    """
    with told(target.out), hidden_folder(target.path) as hidden:
        new = hidden / NEW
        new.mkdir()
        yield new
        _finish(hidden, target, rescue=rescue)


def write_file(target: Target, content: bytes) -> None:
    """Write a file whole.

    Raises:
        SpecError: the target is no place to write to.
        RunError: as `new_folder`.
    """
    with told(target.out), hidden_folder(target.path) as hidden:
        (hidden / NEW).write_bytes(content)
        _finish(hidden, target, rescue=False)


def _finish(hidden: Path, target: Target, *, rescue: bool) -> None:
    """Give what was made the modes of other files here, have it on the disk, and put it into its place."""
    new = hidden / NEW
    mode = (hidden / LOCK).stat().st_mode & 0o777
    for path in (*new.rglob("*"), new):
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
        sync(path)
    # Killed before this line there is what was there before, after it there is the whole of the new.
    if not _put(hidden, target):
        where = f"is in {move_beside(new, target.path)}" if rescue else "was removed"
        came = "was changed" if target.before else "came to be there"
        raise RunError(f"{target.out} {came} meanwhile and is left as it is; what was made {where}")
    sync(target.path.parent)


def _put(hidden: Path, target: Target) -> bool:
    """Put the new thing into its place; False if what is there is not what was."""
    new, path = hidden / NEW, target.path
    if target.before:
        return _replace(hidden, target)
    try:
        if target.before is None:
            move(new, path)
        else:
            new.rename(path)  # Over a folder this works only as long as it is empty.
    except OSError as error:
        if error.errno not in APPEARED or not os.path.lexists(path):
            raise
        return False
    return True


def _replace(hidden: Path, target: Target) -> bool:
    new, old, path = hidden / NEW, hidden / OLD, target.path
    if state(path) != target.before:
        return False
    if swap(new, path):
        if state(new) == target.before:
            return True
        swap(new, path)
        return False
    path.rename(old)
    if state(old) == target.before:
        try:
            move(new, path)
        except FileExistsError:
            pass
        else:
            return True
    # Nothing of somebody's is ever cleared away with the hidden folder.
    move_beside(old, path)
    return False
