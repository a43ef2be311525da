"""A run on disk, which says of itself whether it is whole."""

from evomerge.store.files import RunFile, StageOf, digest, hold
from evomerge.store.journal import encoded
from evomerge.store.run import RunStore

__all__ = ["RunFile", "RunStore", "StageOf", "digest", "encoded", "hold"]
