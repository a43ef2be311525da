"""Model folders on disk: read lazily, checked before use, written atomically."""

from evomerge.checkpoint.anatomy import Anatomy, Place, quiet
from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.parents import ParentFiles, in_run_file, open_parents
from evomerge.checkpoint.size import costs_of
from evomerge.checkpoint.write import refuse_existing, whole_folder, write_model, write_sums

__all__ = [
    "Anatomy",
    "Checkpoint",
    "ParentFiles",
    "Place",
    "costs_of",
    "in_run_file",
    "open_parents",
    "quiet",
    "refuse_existing",
    "whole_folder",
    "write_model",
    "write_sums",
]
