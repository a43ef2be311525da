"""Looking for files by names that may be anything."""

from pathlib import Path


def is_there(path: str | Path) -> bool:
    """Whether there is such a file or folder; no for a name that none can have, or one that cannot be looked for."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; see `is_there`."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def at_home(path: str) -> Path:
    """A path with `~` in place; where nobody has that name, as it is, to be missed when it is opened."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
