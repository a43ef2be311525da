"""Renaming without replacing, and swapping two names at one stroke."""

import ctypes
import errno
import itertools
import os
from pathlib import Path

AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What file systems and kernels say that do not know such a rename."""


def move(old: Path, new: Path) -> None:
    """Rename a file or a folder, unless something has the new name.

    Raises:
        FileExistsError: something has.
    """
    try:
        _renameat2(old, new, NOREPLACE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _move_by_parts(old, new)


def swap(one: Path, other: Path) -> bool:
    """Exchange two names, so that at no time one is missing; False, and nothing done, where that is not known."""
    try:
        _renameat2(one, other, EXCHANGE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def move_beside(old: Path, new: Path) -> Path:
    """Rename to the new name, or the first numbered one beside it that is free; returns which."""
    for number in itertools.count(1):
        name = new if number == 1 else new.with_name(f"{new.name}-{number}")
        try:
            move(old, name)
        except FileExistsError:
            continue
        return name
    raise AssertionError("numbers do not end")


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _renameat2(old: Path, new: Path, flags: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(old), None, str(new))


def _move_by_parts(old: Path, new: Path) -> None:
    """The same where the file system has no such rename, as NFS."""
    if old.is_dir():
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        try:
            old.rename(new)  # Over a folder that came this moment it fails, unless that one is empty.
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
            raise
        return
    try:
        new.hardlink_to(old)
    except OSError as error:
        if error.errno not in UNSUPPORTED | {errno.EPERM, errno.EMLINK}:
            raise
        # Without links the name is taken first, by a file that cannot be anybody else's.
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        old.rename(new)
        return
    old.unlink()
