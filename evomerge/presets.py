"""Ready-made spaces and fitnesses, found by name wherever the package was installed."""

import difflib
from pathlib import Path

from evomerge.errors import SpecError
from evomerge.files import at_home, is_file

_PACKAGE = Path(__file__).parent
KINDS = {"space": "search_spaces", "stages": "search_spaces", "fitness": "fitness"}


def preset_folder(kind: str) -> Path:
    """Where the presets of a kind (a key of `KINDS`) lie: in the wheel, or beside the package in a checkout."""
    installed = _PACKAGE / "presets" / KINDS[kind]
    return installed if installed.is_dir() else _PACKAGE.parent / KINDS[kind]


def preset_names(kind: str) -> list[str]:
    """Names of the presets of a kind."""
    return sorted(path.stem for path in preset_folder(kind).glob("*.yaml"))


def find_preset(kind: str, name: str, nearby: Path) -> Path:
    """The file that a run file's `space`, `stages` or `fitness` names: a path relative to `nearby`, or a preset.

    Raises:
        SpecError: there is neither.
    """
    path = nearby / at_home(name)
    if is_file(path):
        return path
    if name in preset_names(kind):
        return preset_folder(kind) / f"{name}.yaml"
    names = preset_names(kind)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"presets are {', '.join(names)}"
    raise SpecError(f"{kind}: {name[:60]!r} is neither a file nor a preset; {hint}")
