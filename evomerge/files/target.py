"""A place to write to, looked at before the work begins."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

from evomerge.errors import SpecError
from evomerge.files.faults import refuse_path, told

Rule: TypeAlias = Callable[[Path], str | None]
"""What is wrong with replacing what is at a path ("holds notes.txt"); None if nothing is."""

State: TypeAlias = Mapping[str, object]
"""What is at a path: files by name, each with what changes when it does; of an empty folder none."""


@dataclass(frozen=True)
class Target:
    """A place to write to: as the user calls it, where it is, and what was there.

    `before` is None where nothing was, and empty for an empty folder; else it is what is replaced.
    """

    out: Path
    path: Path
    before: State | None

    @classmethod
    def folder(cls, out: Path, rule: Rule | None = None, *, force: bool = False) -> Self:
        """A folder that is missing or empty, or with `force` one that the rule lets go.

        Raises:
            SpecError: it is neither, or no folder can be made there.
        """
        found = cls._at(out)
        with told(out):
            if found.path.is_dir() and not found.path.is_symlink() and not any(found.path.iterdir()):
                here = Path.cwd()
                if found.path in (here, *here.parents):
                    raise SpecError(f"--out: {out} is the folder you are in; give one by its name")
                if found.path.is_mount():
                    raise SpecError(f"--out: {out} is where a disk is mounted; give a folder in it")
                return found._checked({})
        return found._checked(found._replaced(rule, force=force))

    @classmethod
    def file(cls, out: Path, rule: Rule | None = None, *, force: bool = False) -> Self:
        """A file that is missing, or with `force` one that the rule lets go; its folder is there.

        Raises:
            SpecError: it is neither, or no file can be made there.
        """
        found = cls._at(out)
        if not found.path.parent.is_dir():
            raise SpecError(f"{out} cannot be written, {out.parent} is not a folder; make it, or choose another --out")
        if found.path.is_dir():
            raise SpecError(f"{out} cannot be written, it is a folder; choose another --out")
        return found._checked(found._replaced(rule, force=force))

    def spare(self, needed: Iterable[Path]) -> None:
        """See that replacing what is there takes away nothing that is needed.

        Raises:
            SpecError: it is, holds or lies in one of them.
        """
        wrong = among(self.path, needed) if self.before else None
        if wrong:
            raise SpecError(f"{self.out} {wrong}; it is not replaced, choose another --out")

    @classmethod
    def _at(cls, out: Path) -> Self:
        refuse_path(out)
        with told(out):
            name = out.name if out.name != ".." else ""
            path = Path(os.path.realpath(out.parent)) / name if name else Path(os.path.realpath(out))
            _is_there(path)
            return cls(out, path, None)

    def _replaced(self, rule: Rule | None, *, force: bool) -> State | None:
        """What is there and may be replaced, None if nothing is; stops at what must stay."""
        with told(self.out):
            if not _is_there(self.path):
                return None
        if self.path.is_symlink() or self.out.is_symlink():
            raise SpecError(f"{self.out} exists already, as a symbolic link; choose another --out")
        if rule is None:
            raise SpecError(f"{self.out} exists already and was not overwritten; choose another --out")
        if not force:
            raise SpecError(f"{self.out} exists already; choose another --out, or give --force to replace it")
        with told(self.out):
            wrong = rule(self.path)
        if wrong:
            raise SpecError(f"{self.out} {wrong}; it is not replaced, choose another --out")
        with told(self.out):
            return state(self.path)

    def _checked(self, before: State | None) -> Self:
        """The place with what was there; says before the work what would be in its way after it."""
        above = next(parent for parent in self.out.absolute().parents if os.path.lexists(parent))
        wrong = "is not a folder" if not above.is_dir() else ""
        if not wrong and not os.access(above, os.W_OK | os.X_OK):
            wrong = "may not be written to"
        if wrong:
            raise SpecError(f"{self.out} cannot be written, {above} {wrong}; choose another --out")
        return replace(self, before=before)


def among(path: Path, needed: Iterable[Path]) -> str | None:
    """How a path is, holds or lies in one of those that are needed; None if it is apart from them."""
    for other in (Path(os.path.realpath(each)) for each in needed):
        if path == other or path in other.parents or other in path.parents:
            how = "is" if path == other else "holds" if path in other.parents else "lies in"
            return f"{how} {other}, which is needed"
    return None


def state(path: Path) -> State | None:
    """What is at a path now, to be compared later.

    Files in a folder by inode, size and times, so that nothing is read; a file alone by its content, since a rename
    changes its times.
    """
    if not _is_there(path):
        return None
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        return {str(each.relative_to(path)): _signature(each.lstat()) for each in path.rglob("*")}
    if not stat.S_ISREG(mode):
        return {"": mode}
    with path.open("rb") as file:
        return {"": hashlib.file_digest(file, "sha256").hexdigest()}


def _is_there(path: Path) -> bool:
    """Whether anything has this name; unlike `exists` it raises what else is wrong, as with a name that is too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
