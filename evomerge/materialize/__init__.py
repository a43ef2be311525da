"""Recipe to weights."""

from evomerge.materialize.live import LiveModel, free_host_memory, placement_for
from evomerge.materialize.merger import Merger
from evomerge.materialize.placement import Placement, place_parents

__all__ = ["LiveModel", "Merger", "Placement", "free_host_memory", "place_parents", "placement_for"]
