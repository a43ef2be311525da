"""Reading every byte of a model once: the digest of its files, and which tensors in them are not finite."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from evomerge.checkpoint.folder import Checkpoint
from evomerge.environment import cache_folder
from evomerge.errors import SpecError
from evomerge.values import Value, digest_of


class FileRecord(Value):
    """What a full read of a file found: its sha256, and the tensors that fp32 cannot hold as finite numbers."""

    sha256: str
    not_finite: tuple[str, ...] = ()


def digest(
    checkpoint: Checkpoint,
    used: Iterable[str],
    progress: Callable[[str], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> str:
    """Content address of a model folder; reads each file to its end, unless it has not changed since last time.

    `used` are the tensors, by their names on disk, that must be finite; `fresh` has every file read again.

    Raises:
        SpecError: a file cannot be read to its end, or a tensor that is used holds NaN or infinity.
    """
    cache, wanted = _Cache(), frozenset(used)
    found = {}
    for path in checkpoint.files():
        record = None if fresh else cache.get(path)
        if record is None:
            if path in checkpoint.weight_files:
                progress(f"reading {path}")
            record = cache.put(path, _read(checkpoint, path))
        bad = next((name for name in record.not_finite if name in wanted), None)
        if bad is not None:
            wide = checkpoint.tensor_in(path.name, bad).dtype == torch.float64
            beyond = ", or numbers beyond fp32" if wide else ""
            raise SpecError(f"{checkpoint.at(path.name)}: {bad} holds NaN or infinity{beyond}; leave this model out")
        found[path.name] = record.sha256
    return digest_of(found)


def _read(checkpoint: Checkpoint, path: Path) -> FileRecord:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SpecError(f"{checkpoint.at(path.name)} cannot be read to its end ({error.strerror})") from None
    if path not in checkpoint.weight_files:
        return FileRecord(sha256=sha256)
    # Whichever class loads the file, what is in it is known then.
    tensors = ((name, checkpoint.tensor_in(path.name, name)) for name in checkpoint.names_in(path.name))
    return FileRecord(sha256=sha256, not_finite=tuple(name for name, tensor in tensors if not finite(tensor)))


def finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are finite, if they are of a kind that weights are."""
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    # Others are no weights of any model that can be merged.
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return True
    if not tensor.numel():
        return True
    # The least and the greatest number are NaN if any is; one pass, no copy, sixty times as fast as a sum.
    return all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor))


class _Cache:
    """Records of files read before, by path, size, times and inode; losing it costs only time."""

    def __init__(self) -> None:
        self._folder = cache_folder() / "files"

    def get(self, path: Path) -> FileRecord | None:
        try:
            return FileRecord.model_validate_json(self._entry(path).read_text())
        except (OSError, ValueError):
            return None

    def put(self, path: Path, record: FileRecord) -> FileRecord:
        entry = self._entry(path)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            # Half an entry is no JSON, so that it is not believed; whole or not need not be seen to.
            entry.write_text(json.dumps(record.to_plain()))
        except OSError:
            pass  # A read-only home is no reason to stop.
        return record

    def _entry(self, path: Path) -> Path:
        stat = path.stat()
        # The time of the last change of any kind (ctime) is one that no tool sets back.
        parts = (path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        key = "\0".join(map(str, parts))
        return self._folder / hashlib.sha256(key.encode()).hexdigest()
