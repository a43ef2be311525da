"""Evaluation on a Ray cluster."""

from evomerge.execute.ray.executor import RayExecutor
from evomerge.execute.ray.worker import Evaluator, Factory

__all__ = ["Evaluator", "Factory", "RayExecutor"]
