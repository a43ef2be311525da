"""The files that a run rests on: read, and held against what its journal says of them."""

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from evomerge.errors import RunError, SpecError
from evomerge.estimate.calibration import Calibration, read_calibration
from evomerge.events import Created
from evomerge.fitness import Fitness
from evomerge.items import COST, TEXT, TEXT_LOSS, ItemTable
from evomerge.recipe import Parents
from evomerge.spec import SPEC, STAGES, RunSpec, parse, read_yaml
from evomerge.values import Genome, Value

FORMATS = (1, 2, 3)
"""Format 1 knew no estimators: every candidate was put to all search items. Lines of 1 and 2 are not chained."""
JOURNAL = "journal.jsonl"
ITEMS = "responses/items.json"
LOCK = "lock"


class StageOf(Value):
    """The run in stages that a run is one of: the digest of its file, and what the stage's folder is called there."""

    digest: str
    folder: str


class RunFile(Value):
    """`spec.yaml`: all that changes the search, defaults written out. `start` are genomes to begin with.

    `why` says why the optimiser is what it is, where the user left that open.
    """

    format: Literal[3] = 3
    evomerge: str
    spec: RunSpec
    parents: Parents
    start: tuple[Genome, ...] = ()
    scorer: str | None = None
    stage: StageOf | None = None
    why: str | None = None


def read_bytes(path: Path) -> bytes | None:
    """What a file of a run holds, None if there is none.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # A pipe would be waited for.
            raise SpecError(f"{path} is no file; restore it from a copy")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); see to its permissions, or take a copy") from None


def digest(content: bytes) -> str:
    """The digest of a file as a journal tells it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def calibration_name(spec: RunSpec) -> str | None:
    """What the copy of a fitness's calibration is called in the run folder, if it names one."""
    source = spec.fitness.estimator.calibration
    return None if source is None else f"calibration{Path(source).suffix}"


def check_whole(folder: Path, name: str, created: Created | None) -> None:
    """See that a file is what it was when the run folder was made, if its journal says what that was.

    Raises:
        SpecError: it is missing, or was changed.
    """
    content = read_bytes(folder / name)
    if content is None:
        raise SpecError(f"{folder / name} is missing; restore it from a copy")
    if created is not None and created.files.get(name) != digest(content):
        raise SpecError(f"{folder / name} was changed since the run began; restore it from a copy, or start a new run")


def read_run_file(folder: Path, created: Created | None) -> RunFile:
    """`spec.yaml`, of whatever format.

    Raises:
        SpecError: there is none, it is not understood, or it is not what it was.
    """
    path = folder / SPEC
    if read_bytes(path) is None:
        raise SpecError(f"{folder} holds no run (there is no {SPEC}); give the --out folder of a search")
    check_whole(folder, SPEC, created)
    plain = read_yaml(path)
    found = plain.get("format")
    if found not in FORMATS:
        known = f"{FORMATS[0]} to {FORMATS[-1]}"
        raise SpecError(f"{path}: format is {found}, this evomerge reads {known}; use a newer evomerge")
    file = parse(RunFile, _as_latest(plain), str(path))
    if created is None and found == FORMATS[-1]:
        is_there = read_bytes(folder / JOURNAL) is not None
        what = "is damaged in line 1, which vouches for the rest" if is_there else "is missing"
        raise SpecError(f"{folder / JOURNAL} {what}; restore it from a copy, or start a new run")
    _check_stage(folder, file)
    return file


def read_items(folder: Path, file: RunFile, created: Created | None) -> ItemTable:
    """The items of a run.

    Raises:
        SpecError: they are missing, are not what they were, or not those of the run's fitness.
    """
    path = folder / ITEMS
    check_whole(folder, ITEMS, created)
    try:
        table = ItemTable.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise SpecError(f"{path} is missing or damaged; restore it from a copy") from None
    for label, objective in file.spec.fitness.objectives.items():
        for key in file.spec.fitness.keys(label):
            if key not in table.tasks or table.tasks[key].metric(objective.metric) is None:
                raise SpecError(f"{path} has no items of {label}, which {SPEC} asks for; restore both from a copy")
        if objective.cost is not None and objective.cost not in table.costs:
            raise SpecError(f"{path} has not the {objective.cost} that {SPEC} asks for; restore both from a copy")
    return table


def wanted(fitness: Fitness, table: ItemTable) -> Mapping[str, frozenset[str]]:
    """The metrics that a fitness reads, by the task as marks name it, and its costs; and the loss of text."""
    found: dict[str, set[str]] = {} if table.text is None else {TEXT: {TEXT_LOSS}}
    for label, objective in fitness.objectives.items():
        for key in fitness.keys(label):
            found.setdefault(key, set()).add(table.tasks[key].metric(objective.metric) or "")
        if objective.cost is not None:
            found.setdefault(COST, set()).add(objective.cost)
    return {task: frozenset(metrics) for task, metrics in found.items()}


def read_copy_of_calibration(folder: Path, file: RunFile, created: Created | None) -> Calibration | None:
    """The calibration that the run's fitness names, as it was copied into the run folder.

    Raises:
        SpecError: it is missing, not understood, or not what it was.
    """
    name = calibration_name(file.spec)
    if name is None:
        return None
    check_whole(folder, name, created)
    return read_calibration(folder / name)


def hold(folder: Path) -> int:
    """Keep other processes off a run folder until what is returned, a file handle, is closed.

    Raises:
        SpecError: another process has it, or it cannot be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SpecError(_not_writable(folder, error.strerror)) from None
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


def check_writable(folder: Path, names: tuple[str, ...]) -> None:
    """See that files of a run can be written, or made.

    Raises:
        SpecError: they cannot.
    """
    for name in names:
        path = folder / name if (folder / name).exists() else (folder / name).parent
        if not os.access(path, os.W_OK, effective_ids=True):
            raise SpecError(_not_writable(path, "no permission"))


def append_to(handle: int, block: bytes, folder: Path, name: str) -> None:
    """Add a block to a file of a run; it is on disk when this returns.

    Raises:
        RunError: the disk is full or failing; the file is as it was.
    """
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(block):
            written += os.write(handle, block[written:])
        os.fsync(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)  # Half a record is worse than none.
        raise RunError(full(folder, name, error)) from None


def full(folder: Path, name: str, error: OSError) -> str:
    """What is said of a file that cannot be written."""
    return f"{folder / name} cannot be written ({error.strerror}); make room, then go on with: evomerge resume {folder}"


def in_use(folder: Path) -> bool:
    """Whether a living process holds the folder."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(handle)
    return False


def _not_writable(path: Path, reason: str | None) -> str:
    return f"{path} cannot be written ({reason}); see to its permissions, or go on with a copy of the run"


def _as_latest(plain: dict[str, Any]) -> dict[str, Any]:
    """A file of an older format as one of the latest."""
    spec = plain.get("spec")
    fitness = spec.get("fitness") if isinstance(spec, dict) else None
    if plain["format"] == 1 and isinstance(spec, dict) and isinstance(fitness, dict):
        plain["spec"] = {**spec, "fitness": {**fitness, "estimator": {"kind": "mean", "items": "all"}}}
    return {**plain, "format": FORMATS[-1]}


def _check_stage(folder: Path, file: RunFile) -> None:
    """See that a stage lies in the run that it is a stage of, or alone.

    Raises:
        SpecError: it lies in another run, or its run's file was changed.
    """
    here = folder.absolute()
    content = read_bytes(here.parent / STAGES)
    if file.stage is None or content is None:
        return
    if digest(content) != file.stage.digest:
        raise SpecError(f"{here.parent / STAGES} was changed since {folder} began; restore it from a copy")
    if here.name != file.stage.folder:
        raise SpecError(f"{folder} was {file.stage.folder} when it began; give it back that name")
