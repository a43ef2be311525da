"""A run folder: an immutable spec, an append-only journal, and the marks it refers to."""

import contextlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
import yaml

from evomerge.errors import RunError, SpecError
from evomerge.events import Created, Evaluated, Event, MarksAt
from evomerge.files import Target, new_folder, refuse_path, sync, told
from evomerge.items import ItemTable
from evomerge.spec import SPEC, is_run
from evomerge.store.account import Account, Block, size_of
from evomerge.store.files import (
    ITEMS,
    JOURNAL,
    LOCK,
    RunFile,
    calibration_name,
    check_writable,
    digest,
    hold,
    in_use,
    read_bytes,
    read_copy_of_calibration,
    read_items,
    read_run_file,
    wanted,
)
from evomerge.store.journal import beginning, decoded, encoded, split
from evomerge.store.side_files import SideFiles
from evomerge.trial import Marks

MARKS = "responses/marks.f64"


class RunStore:
    """One run folder, read and verified as a whole; of what does not agree nothing is read.

    Opened for writing it is locked. Nothing is written before the first event: then it is cut back to what was whole
    when the last process died.

    Raises:
        SpecError: the folder holds no run, one from a newer format, or a damaged one; it cannot be read, or written;
            or another process has it.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.folder = folder
        self.side_files = SideFiles(folder)
        self._lock: int | None = None
        self._handles: dict[str, int] = {}
        self._read()
        if write:
            read = self._state_of_files
            check_writable(folder, (JOURNAL, MARKS))
            self._lock = hold(folder)
            try:
                if self._stat() != read:
                    self._read()
            except SpecError:
                self.close()
                raise

    @classmethod
    def create(cls, folder: Path, file: RunFile, table: ItemTable) -> "RunStore":
        """A new run folder, open for writing.

        Raises:
            SpecError: the folder exists and is not empty, or cannot be made.
            RunError: the disk is full.
        """
        spec = yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()
        files = {SPEC: spec, ITEMS: json.dumps(table.to_plain()).encode()}
        source, copy = file.spec.fitness.estimator.calibration, calibration_name(file.spec)
        if source is not None and copy is not None:
            files[copy] = read_bytes(Path(source)) or b""
        created = Created(files={name: digest(content) for name, content in files.items()})
        _, line = encoded(created, beginning(chained=True))
        with new_folder(cls.target(folder)) as fresh:
            (fresh / "responses").mkdir()
            for name, content in {**files, JOURNAL: line, MARKS: b"", LOCK: b""}.items():
                (fresh / name).write_bytes(content)
        return cls(folder, write=True)

    @staticmethod
    def in_use(folder: Path) -> bool:
        """Whether a living process holds the folder."""
        return in_use(folder)

    @staticmethod
    def target(folder: Path) -> Target:
        """The place of a new run folder.

        Raises:
            SpecError: it exists and is not empty, or no folder can be made there.
        """
        refuse_path(folder)
        with told(folder):
            if is_run(folder):
                raise SpecError(
                    f"{folder} exists already and nothing was overwritten; go on with it: evomerge resume {folder}"
                )
        return Target.folder(folder)

    def append(self, event: Event) -> None:
        """Write an event; it is on disk when this returns.

        Raises:
            RunError: the disk is full or failing; what was written before stays whole.
        """
        line, raw = encoded(event, self._lines[-1])
        _append(self._handle(JOURNAL), raw, self.folder, JOURNAL)
        self._lines.append(line)

    def keep_marks(self, marks: Marks) -> MarksAt:
        """Write marks beside the journal and say where; the event that refers to them must follow.

        Raises:
            RunError: the disk is full or failing.
        """
        counts = {task: {metric: len(values) for metric, values in rows.items()} for task, rows in marks.items()}
        flat = [value for rows in marks.values() for values in rows.values() for value in values]
        block = np.asarray(flat, dtype="<f8").tobytes()
        handle = self._handle(MARKS)
        offset = os.fstat(handle).st_size
        _append(handle, block, self.folder, MARKS)
        return MarksAt(offset=offset, counts=counts, crc=zlib.crc32(block))

    def marks(self, evaluated: Evaluated) -> Marks | None:
        """The marks of an evaluation, None if it failed.

        Raises:
            SpecError: the file that holds them was cut or changed.
        """
        if evaluated.marks is None:
            return None
        at = evaluated.marks
        end = at.offset + size_of(at)
        block = self._verified[at.offset : end] if end <= len(self._verified) else self._read_marks(at)
        values = iter(np.frombuffer(block, dtype="<f8").tolist())
        return {
            task: {metric: tuple(next(values) for _ in range(count)) for metric, count in rows.items()}
            for task, rows in at.counts.items()
        }

    def events(self) -> list[Event]:
        """Everything that happened, in order; a last line that a crash cut short is left out."""
        return [line.event for line in self._lines if line.event is not None]

    def close(self) -> None:
        """Let go of the folder."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self) -> None:
        """Read and verify everything."""
        self.notes: list[str] = []
        self._state_of_files = self._stat()
        # Marks before the journal: what another process adds meanwhile is then no more than a journal refers to.
        _, marks = self._state_of_files
        content = read_bytes(self.folder / JOURNAL)
        created = _first(content)
        self.file = read_run_file(self.folder, created)
        self.table = read_items(self.folder, self.file, created)
        self.calibration = read_copy_of_calibration(self.folder, self.file, created)
        self._account = Account(self.table, wanted(self.file.spec.fitness, self.table))
        self._lines = [beginning(chained=created is not None)]
        self._read_lines(content or b"")
        self._check_marks(marks[0], None if content is None else len(self._lines) - 1)

    def _read_lines(self, content: bytes) -> None:
        for raw, is_whole in split(content):
            if not is_whole:
                self.notes.append(f"{self.folder / JOURNAL}: the last line was cut short by a crash; it is dropped")
                return
            try:
                line = decoded(raw, self._lines[-1])
                assert line.event is not None, "a line that was read has one"
                self._account.take(line.event, line.number)
            except ValueError as error:
                number = len(self._lines)
                raise SpecError(
                    f"{self.folder / JOURNAL} is damaged in line {number} ({error});"
                    f" restore it from a copy, or {self._cut(self._account.end)}"
                ) from None
            self.side_files.check(line.event, line.number)
            self._lines.append(line)

    def _check_marks(self, size: int, lines: int | None) -> None:
        """See that there are the marks that the journal refers to, and no more than a crash leaves."""
        path, end = self.folder / MARKS, self._account.end
        damaged = self._damaged_block()
        if damaged is not None:
            raise SpecError(
                f"{path} is missing, cut or damaged at byte {damaged.offset}, where the marks of line {damaged.line} of"
                f" the journal begin; restore it from a copy, or {self._cut(damaged.offset)}"
            )
        if size - end > self._account.in_flight():
            what = "is missing" if lines is None else f"ends with line {lines}" if lines else "is empty"
            raise SpecError(
                f"{self.folder / JOURNAL} {what}, but {MARKS} holds {size - end} bytes that came after; restore both"
                f" from a copy, or lose what came after: cut {MARKS} to {end} bytes"
            )

    def _damaged_block(self) -> Block | None:
        """The first marks that are not what they were."""
        self._verified = (read_bytes(self.folder / MARKS) or b"")[: self._account.end]
        content = memoryview(self._verified)
        for block in self._account.blocks.values():
            marks = content[block.offset : block.offset + block.size]
            if len(marks) < block.size or zlib.crc32(marks) != block.crc:
                return block
        return None

    def _read_marks(self, at: MarksAt) -> bytes:
        """Marks that were written since the folder was read.

        Raises:
            SpecError: the file that holds them was cut or changed.
        """
        block = b""
        with contextlib.suppress(OSError), (self.folder / MARKS).open("rb") as file:
            file.seek(at.offset)
            block = file.read(size_of(at))
        if zlib.crc32(block) != at.crc:
            raise SpecError(f"{self.folder / MARKS} was cut or damaged at byte {at.offset}; restore it from a copy")
        return block

    @staticmethod
    def _cut(end: int) -> str:
        """What can be done where a copy is missing."""
        return f"lose what follows: cut {JOURNAL} before that line and {MARKS} to {end} bytes"

    def _stat(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size and time of journal and marks."""
        found = []
        for name in (JOURNAL, MARKS):
            try:
                state = (self.folder / name).stat()
                found.append((state.st_size, state.st_mtime_ns))
            except OSError:  # What cannot be read is said when it is.
                found.append((0, 0))
        return found[0], found[1]

    def _handle(self, name: str) -> int:
        """A file to append to; both are cut back to what was whole before the first is."""
        assert self._lock is not None, "opened for writing"
        if not self._handles:
            self._open()
        return self._handles[name]

    def _open(self) -> None:
        """Drop a torn last line, and marks that no event refers to."""
        try:
            for name, size in ((JOURNAL, self._lines[-1].end), (MARKS, self._account.end)):
                handle = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                self._handles[name] = handle
                if os.fstat(handle).st_size > size:
                    os.ftruncate(handle, size)
                sync((self.folder / name).parent)
        except OSError as error:
            raise RunError(_full(self.folder, name, error)) from None


def _first(content: bytes | None) -> Created | None:
    """What the first line of a journal says of the files beside it; None in formats 1 and 2, or if it is damaged."""
    raw, newline, _ = (content or b"").partition(b"\n")
    try:
        event = decoded(raw + newline, beginning(chained=True)).event
    except ValueError:
        return None
    return event if isinstance(event, Created) else None


def _append(handle: int, block: bytes, folder: Path, name: str) -> None:
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(block):
            written += os.write(handle, block[written:])
        os.fsync(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)  # Half a record is worse than none.
        raise RunError(_full(folder, name, error)) from None


def _full(folder: Path, name: str, error: OSError) -> str:
    return f"{folder / name} cannot be written ({error.strerror}); make room, then go on with: evomerge resume {folder}"
