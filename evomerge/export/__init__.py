"""The best recipes in other tools' words."""

from evomerge.export.adapter import AsAdapter
from evomerge.export.folder import Format, Wanted, export_recipe, export_run, export_target
from evomerge.export.from_mergekit import from_mergekit, is_mergekit, mergekit_models
from evomerge.export.mergekit import Mergekit, read_mergekit
from evomerge.export.to_mergekit import to_mergekit
from evomerge.export.weights import check_exportable

__all__ = [
    "AsAdapter",
    "Format",
    "Wanted",
    "Mergekit",
    "check_exportable",
    "export_recipe",
    "export_run",
    "export_target",
    "from_mergekit",
    "is_mergekit",
    "mergekit_models",
    "read_mergekit",
    "to_mergekit",
]
