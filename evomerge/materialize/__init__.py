"""Recipe to weights."""

from evomerge.materialize.live import LiveModel, free_host_memory, placement_for
from evomerge.materialize.merger import Job, Merger
from evomerge.materialize.placement import MAPPED, HeldParents, Needs, Placement, place_parents
from evomerge.materialize.probe import check_scales
from evomerge.materialize.stack import signature
from evomerge.materialize.weights import Weights

__all__ = [
    "MAPPED",
    "HeldParents",
    "Job",
    "LiveModel",
    "Merger",
    "Needs",
    "Placement",
    "Weights",
    "check_scales",
    "free_host_memory",
    "place_parents",
    "placement_for",
    "signature",
]
