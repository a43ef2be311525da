"""What the operating system refuses, in one line: the user's path is wrong, or the disk is."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import EvomergeError, RunError, SpecError

WRONG = frozenset(
    {
        errno.EACCES, errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
        errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.EXDEV,
    }
)  # fmt: skip
"""What says that a path is no place to write to."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What says that there is no room; which file is named beside it varies, as when one is copied."""


@contextmanager
def told(out: Path) -> Iterator[None]:
    """Turns an OSError while `out` is written into one line.

    Raises:
        SpecError: `out` is no place to write to.
        RunError: the disk is full or failing, or a file that was needed cannot be read.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # Of a terminal that went away.
    except OSError as error:
        raise _fault(out, error) from None


def fault(error: OSError) -> EvomergeError:
    """The error of a file that was read or written, as one line."""
    reason = error.strerror or str(error).split("\n")[0]
    name = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in WRONG and name:
        return SpecError(f"{name}{reason}; give another path, or see to this one")
    return RunError(f"{name}{reason}; {_way(error)}, then try again")


def refuse_path(path: Path) -> None:
    """Stop at names that no file can have, or that nobody could read again.

    Raises:
        SpecError: the path has a NUL, or is not Unicode.
    """
    text = str(path)
    try:
        wrong = "NUL in its name" if "\0" in text else ""
        text.encode()
    except UnicodeEncodeError:
        wrong = "a name that is not UTF-8"
    if wrong:
        raise SpecError(f"{text!a} cannot be written, it has {wrong}; choose another --out")


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A folder for the length of the block, where the system keeps what is temporary.

    Raises:
        RunError: there is no room for it.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="evomerge-")
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"no temporary folder can be made ({reason}); make room, or set TMPDIR to another one") from None
    with made as folder, told(Path(folder)):
        yield Path(folder)


def _fault(out: Path, error: OSError) -> EvomergeError:
    reason = error.strerror or str(error).split("\n")[0]
    culprit = Path(str(error.filename)) if error.filename is not None else None
    if culprit is not None and error.errno not in FULL and not _about(culprit, out):
        return RunError(f"{out} was not written, {culprit} cannot be used ({reason}); nothing was left behind")
    if error.errno in WRONG:
        return SpecError(f"{out} cannot be written ({reason}); choose another --out")
    return RunError(f"{out} cannot be written ({reason}) and nothing was left behind; {_way(error)}, then try again")


def _way(error: OSError) -> str:
    return "make room" if error.errno in FULL else "see to the disk"


def _about(culprit: Path, out: Path) -> bool:
    """Whether a file is the target, above it, below it, or in the hidden folder beside it."""
    target, culprit = out.absolute(), culprit.absolute()
    hidden = f".{target.name[:20]}"
    near = culprit in (target, *target.parents) or target in culprit.parents
    return near or any(part.startswith(hidden) for part in culprit.parts)
