"""A live model to raw marks."""

from evomerge.score.failure import GradeFailure, ScoreFailure
from evomerge.score.function import FunctionScorer, ScorerFunction, function_table
from evomerge.score.lessons import Lessons
from evomerge.score.prose import Guarded, Prose
from evomerge.score.rows import Request
from evomerge.score.scorer import Scorer, TaskScorer, check_metrics, code_remark, open_banks

__all__ = [
    "FunctionScorer",
    "GradeFailure",
    "Guarded",
    "Lessons",
    "Request",
    "Prose",
    "ScoreFailure",
    "Scorer",
    "ScorerFunction",
    "TaskScorer",
    "check_metrics",
    "code_remark",
    "function_table",
    "open_banks",
]
