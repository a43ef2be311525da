"""Recipe to weights."""

from evomerge.materialize.fold import Last
from evomerge.materialize.live import LiveModel, free_host_memory, placement_for
from evomerge.materialize.merger import Job, Merger, unchanged_source
from evomerge.materialize.placement import MAPPED, HeldParents, Needs, Placement, place_parents
from evomerge.materialize.probe import check_scales
from evomerge.materialize.stack import signature
from evomerge.materialize.weights import Weights, lasts_of

__all__ = [
    "MAPPED",
    "HeldParents",
    "Job",
    "Last",
    "LiveModel",
    "Merger",
    "Needs",
    "Placement",
    "Weights",
    "check_scales",
    "free_host_memory",
    "lasts_of",
    "place_parents",
    "placement_for",
    "signature",
    "unchanged_source",
]
