"""A run on disk, which says of itself whether it is whole."""

from evomerge.store.files import RunFile, StageOf, digest, hold
from evomerge.store.journal import encoded
from evomerge.store.learned import LearnedStates
from evomerge.store.run import RunStore
from evomerge.store.side_files import SideFiles
from evomerge.store.sizes import Shape, expected_bytes, learning_bytes

__all__ = [
    "LearnedStates",
    "RunFile",
    "RunStore",
    "Shape",
    "SideFiles",
    "StageOf",
    "digest",
    "encoded",
    "expected_bytes",
    "learning_bytes",
    "hold",
]
