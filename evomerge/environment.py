"""Settings that are a machine's, not a run's: from the environment."""

import math
import os
from pathlib import Path

from evomerge.errors import SpecError

CACHE = "EVOMERGE_CACHE"
"""Where what can be made again is kept."""


def cache_folder() -> Path:
    """Where what can be made again is kept, by the environment or by its usual place."""
    given = os.environ.get(CACHE)
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomerge"


def seconds_from(name: str, default: float) -> float:
    """A number of seconds above 0, as the environment says it, or else the default.

    Raises:
        SpecError: the environment says something that is none.
    """
    text = os.environ.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SpecError(f"{name}: {text!r} is no number of seconds; give one above 0, or leave it out")
    return seconds
