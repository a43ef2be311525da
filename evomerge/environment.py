"""Settings that are a machine's, not a run's: from the environment."""

import math
import os

from evomerge.errors import SpecError


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
