"""Recipe to weights."""

from evomerge.materialize.live import LiveModel, free_host_memory, placement_for
from evomerge.materialize.merger import Job, Merger
from evomerge.materialize.placement import MAPPED, HeldParents, Needs, Placement, place_parents

__all__ = [
    "MAPPED",
    "HeldParents",
    "Job",
    "LiveModel",
    "Merger",
    "Needs",
    "Placement",
    "free_host_memory",
    "place_parents",
    "placement_for",
]
