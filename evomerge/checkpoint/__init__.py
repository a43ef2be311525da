"""Model folders on disk: read lazily, checked before use, written atomically."""

from evomerge.checkpoint.account import Account
from evomerge.checkpoint.adapter import ADAPTER_PREFIX, ADAPTER_WEIGHTS, AdapterFolder, Change
from evomerge.checkpoint.anatomy import Anatomy, Place
from evomerge.checkpoint.depth import moved_config, renumbered, text_part
from evomerge.checkpoint.folder import Checkpoint
from evomerge.checkpoint.inspect import finite
from evomerge.checkpoint.parents import ParentFiles, Source, open_parents
from evomerge.checkpoint.read import as_tied, blank_model, quiet, read_config, read_tokenizer, understood
from evomerge.checkpoint.shares import Fine, Mix, Shares
from evomerge.checkpoint.side import ADAPTER
from evomerge.checkpoint.size import costs_of
from evomerge.checkpoint.terms import Terms, in_run_file
from evomerge.checkpoint.write import write_config, write_model

__all__ = [
    "ADAPTER",
    "ADAPTER_WEIGHTS",
    "ADAPTER_PREFIX",
    "Account",
    "AdapterFolder",
    "Anatomy",
    "Change",
    "Checkpoint",
    "Fine",
    "Mix",
    "ParentFiles",
    "Place",
    "Shares",
    "Source",
    "Terms",
    "as_tied",
    "blank_model",
    "costs_of",
    "finite",
    "in_run_file",
    "moved_config",
    "open_parents",
    "quiet",
    "read_config",
    "read_tokenizer",
    "renumbered",
    "text_part",
    "understood",
    "write_config",
    "write_model",
]
