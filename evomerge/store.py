"""A run on disk: an immutable spec, an append-only journal, and the marks it refers to."""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import ValidationError

from evomerge.errors import RunError, SpecError
from evomerge.estimate.calibration import Calibration, read_calibration
from evomerge.events import EVENT, Evaluated, Event, MarksAt
from evomerge.files import Target, new_folder, refuse_path, sync, told
from evomerge.items import ItemTable
from evomerge.recipe import Parents
from evomerge.spec import SPEC, RunSpec, is_run, parse, read_yaml
from evomerge.trial import Marks
from evomerge.values import Genome, Value

FORMATS = (1, 2)
"""Format 1 knew no estimators: every candidate was put to all search items."""
JOURNAL = "journal.jsonl"
ITEMS = "responses/items.json"
MARKS = "responses/marks.f64"
LOCK = "lock"


class RunFile(Value):
    """`spec.yaml`: all that changes the search, defaults written out. `start` are genomes to begin with."""

    format: Literal[2] = 2
    evomerge: str
    spec: RunSpec
    parents: Parents
    start: tuple[Genome, ...] = ()
    scorer: str | None = None


@dataclass(frozen=True)
class _Line:
    event: Event
    end: int


class RunStore:
    """One run folder. Opened for writing it is locked, and cut back to what was whole when the last process died.

    Raises:
        SpecError: the folder holds no run, one from a newer format, or a damaged one; or another process has it.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self.folder = folder
        if not (folder / SPEC).is_file():
            raise SpecError(f"{folder} holds no run (there is no {SPEC}); give the --out folder of a search")
        self.file = _read_spec(folder / SPEC)
        self.table = _read_items(folder / ITEMS)
        self.calibration = _read_calibration(folder, self.file)
        self.notes: list[str] = []
        self._lock = hold(folder) if write else None
        try:
            self._lines = list(self._read())
            if write:
                self._cut_back()
                self._journal = os.open(folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                self._marks = os.open(folder / MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                sync(folder)
                sync((folder / MARKS).parent)
        except SpecError:
            if self._lock is not None:
                os.close(self._lock)
            raise

    @classmethod
    def create(cls, folder: Path, file: RunFile, table: ItemTable) -> "RunStore":
        """A new run folder, open for writing.

        Raises:
            SpecError: the folder exists and is not empty, or cannot be made.
            RunError: the disk is full.
        """
        plain = file.model_dump(mode="json")
        with new_folder(cls.target(folder)) as fresh:
            (fresh / "responses").mkdir()
            (fresh / ITEMS).write_bytes(json.dumps(table.to_plain()).encode())
            if (source := file.spec.fitness.estimator.calibration) is not None:
                (fresh / f"calibration{Path(source).suffix}").write_bytes(Path(source).read_bytes())
            (fresh / SPEC).write_bytes(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())
        return cls(folder, write=True)

    @staticmethod
    def in_use(folder: Path) -> bool:
        """Whether a living process holds the folder."""
        if not (folder / LOCK).exists():
            return False
        handle = os.open(folder / LOCK, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        finally:
            os.close(handle)
        return False

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
        _append(self._journal, _line(event), self.folder / JOURNAL)
        self._lines.append(_Line(event, 0))

    def keep_marks(self, marks: Marks) -> MarksAt:
        """Write marks beside the journal and say where; the event that refers to them must follow.

        Raises:
            RunError: the disk is full or failing.
        """
        counts = {task: {metric: len(values) for metric, values in rows.items()} for task, rows in marks.items()}
        flat = [value for rows in marks.values() for values in rows.values() for value in values]
        block = np.asarray(flat, dtype="<f8").tobytes()
        offset = os.fstat(self._marks).st_size
        _append(self._marks, block, self.folder / MARKS)
        return MarksAt(offset=offset, counts=counts, crc=zlib.crc32(block))

    def marks(self, evaluated: Evaluated) -> Marks | None:
        """The marks of an evaluation, None if it failed.

        Raises:
            SpecError: the file that holds them was cut or changed.
        """
        if evaluated.marks is None:
            return None
        at = evaluated.marks
        total = sum(count for rows in at.counts.values() for count in rows.values())
        block = b""
        with contextlib.suppress(OSError), (self.folder / MARKS).open("rb") as file:
            file.seek(at.offset)
            block = file.read(total * 8)
        if zlib.crc32(block) != at.crc:
            raise SpecError(f"{self.folder / MARKS} is missing, or damaged at byte {at.offset}; restore it from a copy")
        values = iter(np.frombuffer(block, dtype="<f8").tolist())
        return {
            task: {metric: tuple(next(values) for _ in range(count)) for metric, count in rows.items()}
            for task, rows in at.counts.items()
        }

    def events(self) -> list[Event]:
        """Everything that happened, in order; a last line that a crash cut short is left out."""
        return [line.event for line in self._lines]

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._journal)
            os.close(self._marks)
            os.close(self._lock)
            self._lock = None

    def _read(self) -> Iterator[_Line]:
        path = self.folder / JOURNAL
        content = path.read_bytes() if path.exists() else b""
        end = 0
        for number, raw in enumerate(content.splitlines(keepends=True), start=1):
            end += len(raw)
            try:
                yield _Line(_parse_line(raw), end)
            except ValueError as error:
                if end < len(content):
                    raise SpecError(
                        f"{path} is damaged in line {number} ({error}), and not at its end; restore it from a copy, or"
                        " cut the file before that line and lose what follows"
                    ) from None
                self.notes.append(f"{path}: the last line was cut short by a crash; it is dropped")

    def _cut_back(self) -> None:
        """Drop a torn last line, and marks that no event refers to."""
        whole = self._lines[-1].end if self._lines else 0
        used = [line.event.marks for line in self._lines if isinstance(line.event, Evaluated) and line.event.marks]
        sizes = [at.offset + 8 * sum(n for rows in at.counts.values() for n in rows.values()) for at in used]
        for name, size in ((JOURNAL, whole), (MARKS, max(sizes, default=0))):
            if (self.folder / name).exists():
                os.truncate(self.folder / name, size)


def _line(event: Event) -> bytes:
    text = json.dumps(event.to_plain(), separators=(",", ":"), ensure_ascii=False)
    return f'{{"crc":{zlib.crc32(text.encode())},"event":{text}}}\n'.encode()


def _parse_line(raw: bytes) -> Event:
    if not raw.endswith(b"\n"):
        raise ValueError("it has no end")
    head, _, rest = raw.partition(b',"event":')
    text = rest.removesuffix(b"}\n")
    if head != b'{"crc":%d' % zlib.crc32(text):
        raise ValueError("its checksum is wrong")
    try:
        return EVENT.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"it is not understood: {error.errors()[0]['msg']}") from None


def _read_spec(path: Path) -> RunFile:
    plain = read_yaml(path)
    if plain.get("format") not in FORMATS:
        known = f"{FORMATS[0]} to {FORMATS[-1]}"
        raise SpecError(f"{path}: format is {plain.get('format')}, this evomerge reads {known}; use a newer evomerge")
    if plain["format"] == 1:
        plain["format"] = 2
        plain["spec"]["fitness"]["estimator"] = {"kind": "mean", "items": "all"}
    return parse(RunFile, plain, str(path))


def _read_calibration(folder: Path, file: RunFile) -> Calibration | None:
    source = file.spec.fitness.estimator.calibration
    return None if source is None else read_calibration(folder / f"calibration{Path(source).suffix}")


def _read_items(path: Path) -> ItemTable:
    try:
        return parse(ItemTable, json.loads(path.read_text()), str(path))
    except (OSError, ValueError):
        raise SpecError(f"{path} is missing or damaged; restore it from a copy") from None


def hold(folder: Path) -> int:
    """Keep other processes off a run folder until what is returned, a file handle, is closed.

    Raises:
        SpecError: another process has it.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SpecError(f"{folder} is in use by another process; wait for it to end, or stop it first") from None
    except OSError as error:
        os.close(handle)
        reason = f"its file system locks no files ({error.strerror}; Lustre does when mounted with flock)"
        raise SpecError(f"{folder} cannot be held: {reason}; put runs on another one") from None
    return handle


def _append(handle: int, block: bytes, path: Path) -> None:
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(block):
            written += os.write(handle, block[written:])
        os.fsync(handle)
    except OSError as error:
        os.ftruncate(handle, size)  # Half a record is worse than none.
        folder = path.parent if path.name == JOURNAL else path.parent.parent
        raise RunError(
            f"{path} cannot be written ({error.strerror}); make room, then go on with: evomerge resume {folder}"
        ) from None
