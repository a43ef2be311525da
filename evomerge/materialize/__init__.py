"""Recipe to weights."""

from evomerge.materialize.fold import GainError, Last, check_gains
from evomerge.materialize.grams import Grams, linear_maps, shares, suited
from evomerge.materialize.jacobians import Jacobians
from evomerge.materialize.live import LiveModel, placement_for
from evomerge.materialize.merger import Job, Merger, unchanged_source
from evomerge.materialize.placement import MAPPED, HeldParents, Needs, Placement, place_parents
from evomerge.materialize.probe import check_scales
from evomerge.materialize.slopes import Slopes
from evomerge.materialize.stack import signature
from evomerge.materialize.weights import Weights, lasts_of

__all__ = [
    "MAPPED",
    "GainError",
    "Grams",
    "HeldParents",
    "Jacobians",
    "Job",
    "Last",
    "LiveModel",
    "Merger",
    "Needs",
    "Placement",
    "Slopes",
    "Weights",
    "check_gains",
    "check_scales",
    "lasts_of",
    "linear_maps",
    "place_parents",
    "placement_for",
    "shares",
    "signature",
    "suited",
    "unchanged_source",
]
