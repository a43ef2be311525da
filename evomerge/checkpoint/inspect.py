"""Reading every byte of a model once: the digest of its files, and whether all numbers in them are finite."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from evomerge.checkpoint.folder import Checkpoint
from evomerge.errors import SpecError
from evomerge.values import Value, digest_of

CACHE = "EVOMERGE_CACHE"


class FileRecord(Value):
    """What a full read of a file found: its sha256, and the first tensor that is not finite."""

    sha256: str
    not_finite: str | None = None


def digest(checkpoint: Checkpoint, progress: Callable[[str], None] = lambda _: None) -> str:
    """Content address of a model folder; reads each file to its end, unless it has not changed since last time.

    Raises:
        SpecError: a file cannot be read to its end, or holds NaN or infinity.
    """
    cache = _Cache()
    found = {}
    for path in checkpoint.files():
        record = cache.get(path)
        if record is None:
            if path in checkpoint.weight_files:
                progress(f"reading {path}")
            record = cache.put(path, _read(checkpoint, path))
        if record.not_finite:
            raise SpecError(
                f"{checkpoint.at(path.name)}: {record.not_finite} holds NaN or infinity; leave this model out"
            )
        found[path.name] = record.sha256
    return digest_of(found)


def _read(checkpoint: Checkpoint, path: Path) -> FileRecord:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(f"{checkpoint.at(path.name)} cannot be read to its end ({error})") from None
    if path not in checkpoint.weight_files:
        return FileRecord(sha256=sha256)
    names = checkpoint.names_in(path.name)
    bad = next((name for name in names if not _finite(checkpoint.tensor(name))), None)
    return FileRecord(sha256=sha256, not_finite=bad)


def _finite(tensor: torch.Tensor) -> bool:
    # The sum of magnitudes is finite exactly if every term is; one pass, no mask the size of the tensor.
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.abs().sum(dtype=torch.float64)))


class _Cache:
    """Records of files read before, by path, size, time and inode; losing it costs only time."""

    def __init__(self) -> None:
        home = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomerge"
        self._folder = Path(home) / "files"

    def get(self, path: Path) -> FileRecord | None:
        try:
            return FileRecord.model_validate_json(self._entry(path).read_text())
        except (OSError, ValueError):
            return None

    def put(self, path: Path, record: FileRecord) -> FileRecord:
        entry = self._entry(path)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            fresh = entry.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(record.to_plain()))
            fresh.replace(entry)
        except OSError:
            pass  # A read-only home is no reason to stop.
        return record

    def _entry(self, path: Path) -> Path:
        stat = path.stat()
        key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
        return self._folder / hashlib.sha256(key.encode()).hexdigest()
