"""Recipe to weights."""

from evomerge.merge.live import LiveModel, free_host_memory, placement_for
from evomerge.merge.merger import Merger
from evomerge.merge.placement import Placement, place_parents

__all__ = ["LiveModel", "Merger", "Placement", "free_host_memory", "place_parents", "placement_for"]
