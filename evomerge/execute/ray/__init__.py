"""Evaluation on a Ray cluster."""

import os

# What befalls workers stands in the journal, in our words; Ray would print its own. It reads this when it is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

from evomerge.execute.ray.executor import RayExecutor
from evomerge.execute.ray.shards import pieces_for
from evomerge.execute.ray.worker import Evaluator, Factory

__all__ = ["Evaluator", "Factory", "RayExecutor", "pieces_for"]
