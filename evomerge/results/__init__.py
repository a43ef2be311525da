"""What a run has found so far."""

from evomerge.results.answers import scores_of, with_scores
from evomerge.results.hopeless import refuse_failed_parents, refuse_nothing_but_failures
from evomerge.results.pareto import hypervolume, non_dominated, volumes, worst
from evomerge.results.pool import pool_keys
from evomerge.results.process import AS_BEFORE, Process, worker_names
from evomerge.results.reading import read_into
from evomerge.results.row import Row, Which
from evomerge.results.state import RunState
from evomerge.results.stopping import Stopping, was_cut_behind_a_telling
from evomerge.results.table import FINALISTS, MOST_FINALISTS, Results
from evomerge.results.words import RIVALS, amount, difference, number, perplexity, text_meaning, with_error

__all__ = [
    "AS_BEFORE", "FINALISTS", "MOST_FINALISTS", "RIVALS", "Process", "Results", "Row", "RunState", "Stopping",
    "Which", "amount", "difference", "hypervolume", "non_dominated", "number", "perplexity", "pool_keys", "read_into",
    "volumes", "with_error", "refuse_failed_parents", "refuse_nothing_but_failures", "was_cut_behind_a_telling",
    "scores_of", "text_meaning", "with_scores", "worker_names", "worst",
]  # fmt: skip
