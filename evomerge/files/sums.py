"""Checksums of the files in a folder, and what was changed since they were taken."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """Write checksums of every file of a folder and the folders in it, in the format of `sha256sum -c`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def changed_since(folder: Path) -> str | None:
    """What of a folder is not as its checksums say; None if it holds nothing but what they list, byte for byte."""
    if folder.is_symlink() or not folder.is_dir():
        return "is not a folder"
    if not (folder / SUMS).is_file():
        return f"has no {SUMS}"
    found = [LINE.fullmatch(line) for line in (folder / SUMS).read_text(errors="replace").splitlines()]
    listed = {match[2]: match[1] for match in found if match}
    if len(listed) < len(found):
        return f"has a {SUMS} with other lines in it"
    paths = (path for path in sorted(folder.rglob("*")) if path != folder / SUMS)
    return next((wrong for path in paths if (wrong := _wrong(path, folder, listed))), None)


def _wrong(path: Path, folder: Path, listed: Mapping[str, str]) -> str | None:
    name = path.relative_to(folder).as_posix()
    if path.is_dir() and not path.is_symlink():
        return None if any(other.startswith(f"{name}/") for other in listed) else f"holds {name}"
    if name not in listed or not path.is_file() or path.is_symlink():
        return f"holds {name}"
    return None if _sum(path) == listed[name] else f"holds {name}, which was changed since it was written"


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
