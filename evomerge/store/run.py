"""A run folder: an immutable spec, an append-only journal, and the marks and scores it refers to."""

import json
import os
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from evomerge.errors import RunError, SpecError
from evomerge.events import Created, Evaluated, Event, MarksAt, ScoresAt
from evomerge.files import Target, new_folder, refuse_path, sync, told
from evomerge.items import ItemTable
from evomerge.spec import SPEC, is_run
from evomerge.store.account import Account
from evomerge.store.blocks import MARKS, SCORES, Blocks, Column
from evomerge.store.files import (
    ITEMS,
    JOURNAL,
    LOCK,
    RunFile,
    append_to,
    calibration_name,
    check_writable,
    digest,
    full,
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
from evomerge.trial import Marks, Scores


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
            SideFiles(fresh).keep_of(file.parents.models.values())
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
        append_to(self._handle(JOURNAL), raw, self.folder, JOURNAL)
        self._lines.append(line)

    def keep_marks(self, marks: Marks) -> MarksAt:
        """Write marks beside the journal and say where; the event that refers to them must follow.

        Raises:
            RunError: the disk is full or failing.
        """
        counts = {task: {metric: len(values) for metric, values in rows.items()} for task, rows in marks.items()}
        flat = [value for rows in marks.values() for values in rows.values() for value in values]
        offset, crc = self._keep(MARKS, np.asarray(flat, dtype="<f8").tobytes())
        return MarksAt(offset=offset, counts=counts, crc=crc)

    def keep_scores(self, scores: Scores) -> ScoresAt:
        """Do the same with scores, before the marks of the same work.

        Raises:
            RunError: the disk is full or failing.
        """
        counts = {task: tuple(map(len, rows)) for task, rows in scores.items()}
        flat = [value for rows in scores.values() for row in rows for value in row]
        offset, crc = self._keep(SCORES, np.asarray(flat, dtype="<f4").tobytes())
        return ScoresAt(offset=offset, counts=counts, crc=crc)

    def _keep(self, name: str, block: bytes) -> tuple[int, int]:
        """Write a block of numbers; where it begins, and its checksum."""
        handle = self._handle(name)
        offset = os.fstat(handle).st_size
        append_to(handle, block, self.folder, name)
        return offset, zlib.crc32(block)

    def marks(self, evaluated: Evaluated) -> Marks | None:
        """The marks of an evaluation, None if it failed.

        Raises:
            SpecError: the file that holds them was cut or changed.
        """
        if evaluated.marks is None:
            return None
        values = iter(np.frombuffer(self._marks.read(evaluated.marks), dtype="<f8").tolist())
        return {
            task: {metric: tuple(islice(values, count)) for metric, count in rows.items()}
            for task, rows in evaluated.marks.counts.items()
        }

    def scores(self, evaluated: Evaluated) -> Scores | None:
        """The scores of an evaluation, None if there are none.

        Raises:
            SpecError: the file that holds them was cut or changed.
        """
        if evaluated.scores is None:
            return None
        values = iter(np.frombuffer(self._scores.read(evaluated.scores), dtype="<f4").tolist())
        return {
            task: tuple(tuple(islice(values, count)) for count in rows)
            for task, rows in evaluated.scores.counts.items()
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
        # Sizes before the journal: what another process adds meanwhile is then no more than a journal refers to.
        _, marks, scores = self._state_of_files
        content = read_bytes(self.folder / JOURNAL)
        created = _first(content)
        self.file = self.side_files.placed_in(read_run_file(self.folder, created))
        self.table = read_items(self.folder, self.file, created)
        self.calibration = read_copy_of_calibration(self.folder, self.file, created)
        self._account = Account(self.table, wanted(self.file.spec.fitness, self.table))
        self._lines = [beginning(chained=created is not None)]
        self._read_lines(content or b"")
        self._marks = self._column(MARKS, self._account.marks)
        self._scores = self._column(SCORES, self._account.scores)
        self._check_surplus(marks[0], scores[0], None if content is None else len(self._lines) - 1)

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
                    f" restore it from a copy, or {self._cut(number)}"
                ) from None
            self.side_files.check(line.event, line.number)
            self._lines.append(line)

    def _column(self, name: str, blocks: Blocks) -> Column:
        """A file of numbers, seen to hold what the journal refers to."""
        found = Column(self.folder, name, blocks)
        if (damaged := found.damaged()) is not None:
            raise SpecError(
                f"{found.path} is missing, cut or damaged at byte {damaged.offset}, where the {blocks.what} of line"
                f" {damaged.line} of the journal begin; restore it from a copy, or {self._cut(damaged.line)}"
            )
        return found

    def _check_surplus(self, marks: int, scores: int, lines: int | None) -> None:
        """See that there are no more marks and scores, in bytes, than a crash leaves beside so many lines.

        Scores are written before the marks of a work, of which there are too many if a journal lost its end.
        """
        account = self._account
        most = {MARKS: account.in_flight(), SCORES: scores if account.is_under_way else 0}
        for name, size, blocks in ((MARKS, marks, account.marks), (SCORES, scores, account.scores)):
            if size - blocks.end > most[name]:
                what = "is missing" if lines is None else f"ends with line {lines}" if lines else "is empty"
                raise SpecError(
                    f"{self.folder / JOURNAL} {what}, but {name} holds {size - blocks.end} bytes that came after;"
                    f" restore both from a copy, or lose what came after: cut {name} to {blocks.end} bytes"
                )

    def _cut(self, line: int) -> str:
        """What can be done where a copy is missing, and a line or what it refers to is damaged."""
        marks, scores = self._account.marks.before(line), self._account.scores
        more = f", {SCORES} to {scores.before(line)}" if scores.known else ""
        return f"lose what follows: cut {JOURNAL} before that line and {MARKS} to {marks} bytes{more}"

    def _stat(self) -> list[tuple[int, int]]:
        """Size and time of journal, marks and scores."""
        found = []
        for name in (JOURNAL, MARKS, SCORES):
            try:
                state = (self.folder / name).stat()
                found.append((state.st_size, state.st_mtime_ns))
            except OSError:  # What cannot be read is said when it is.
                found.append((0, 0))
        return found

    def _handle(self, name: str) -> int:
        """A file to append to; all are cut back to what was whole before the first is."""
        assert self._lock is not None, "opened for writing"
        if not self._handles:
            for each in (JOURNAL, MARKS, *([SCORES] if (self.folder / SCORES).exists() else [])):
                self._open(each)
        if name not in self._handles:
            self._open(name)
        return self._handles[name]

    def _open(self, name: str) -> None:
        """Drop a torn last line, or numbers that no event refers to."""
        account = self._account
        end = {JOURNAL: self._lines[-1].end, MARKS: account.marks.end, SCORES: account.scores.end}[name]
        try:
            handle = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._handles[name] = handle
            if os.fstat(handle).st_size > end:
                os.ftruncate(handle, end)
            sync((self.folder / name).parent)
        except OSError as error:
            raise RunError(full(self.folder, name, error)) from None


def _first(content: bytes | None) -> Created | None:
    """What the first line of a journal says of the files beside it; None in formats 1 and 2, or if it is damaged."""
    raw, newline, _ = (content or b"").partition(b"\n")
    try:
        event = decoded(raw + newline, beginning(chained=True)).event
    except ValueError:
        return None
    return event if isinstance(event, Created) else None
