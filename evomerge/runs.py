"""How a run's folder is told from others."""

from pathlib import Path

SPEC = "spec.yaml"
"""What makes a folder a run's."""
STAGES = "stages.yaml"
"""What makes a folder that of a run in stages."""


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of a run in stages, and may be looked into."""
    try:
        return any((folder / name).is_file() for name in (SPEC, STAGES))
    except (OSError, ValueError):  # Among them names that no file can have.
        return False
