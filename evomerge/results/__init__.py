"""What a run has found so far."""

from evomerge.results.pareto import hypervolume, non_dominated
from evomerge.results.reading import read_into
from evomerge.results.state import RunState
from evomerge.results.table import FINALISTS, MOST_FINALISTS, Results, Row

__all__ = ["FINALISTS", "MOST_FINALISTS", "Results", "Row", "RunState", "hypervolume", "non_dominated", "read_into"]
