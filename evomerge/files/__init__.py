"""The one way to write what a user will find: whole or not at all, and in place of nothing that somebody else made."""

from evomerge.files.faults import fault, passing_folder, refuse_path, told
from evomerge.files.looking import at_home, is_file, is_there
from evomerge.files.moves import sync
from evomerge.files.sums import SUMS, changed_since, write_sums
from evomerge.files.target import Rule, Target, among
from evomerge.files.turns import turn
from evomerge.files.write import new_folder, write_file

__all__ = [
    "SUMS",
    "Rule",
    "Target",
    "among",
    "at_home",
    "changed_since",
    "fault",
    "is_file",
    "is_there",
    "new_folder",
    "passing_folder",
    "refuse_path",
    "sync",
    "told",
    "turn",
    "write_file",
    "write_sums",
]
