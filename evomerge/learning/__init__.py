"""Learned coefficients: what is learned from, the descent from the best fixed recipe on, and what it will take."""

from evomerge.learning.ground import Ground, Kept
from evomerge.learning.loop import Learning
from evomerge.learning.planned import LearningPlan, learning_plan

__all__ = ["Ground", "Kept", "Learning", "LearningPlan", "learning_plan"]
