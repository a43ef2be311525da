"""The embedded example: a real search over real, if tiny, language models, from nothing to an exported model."""

from evomerge.demo.story import free, tell

__all__ = ["free", "tell"]
