"""From a run file to live objects: the only place that knows every concrete class."""

from evomerge.assemble.calibrate import calibrate, dimensions_of
from evomerge.assemble.run import QUIET, Listener, confirm_more, load, resume, search
from evomerge.assemble.single import export, merge, plan, score

__all__ = [
    "QUIET",
    "Listener",
    "calibrate",
    "confirm_more",
    "dimensions_of",
    "export",
    "load",
    "merge",
    "plan",
    "resume",
    "score",
    "search",
]
