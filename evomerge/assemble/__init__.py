"""From a run file to live objects: the only place that knows every concrete class."""

from evomerge.assemble.calibrate import calibrate, dimensions_of
from evomerge.assemble.exporting import export
from evomerge.assemble.means import QUIET, Elsewhere, Listener
from evomerge.assemble.single import merge, score
from evomerge.assemble.stages import Stage, confirm_more, load, plan, resume, search, stage_of

__all__ = [
    "QUIET",
    "Elsewhere",
    "Listener",
    "Stage",
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
    "stage_of",
]
