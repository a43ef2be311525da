"""Items calibrated on what many models answered, from files to a file."""

from collections.abc import Sequence
from pathlib import Path

from evomerge.assemble.means import QUIET, Listener
from evomerge.errors import SpecError
from evomerge.estimate.calibrate import Fitting
from evomerge.estimate.calibrate import calibrate as fit
from evomerge.estimate.calibration import Calibration, check_suffix, read_calibration, write_calibration
from evomerge.estimate.panel import read_panel
from evomerge.files import Target
from evomerge.spec import is_run

AUTO = "auto"


def calibrate(
    responses: Sequence[Path],
    out: Path,
    fitting: Fitting = Fitting(),  # noqa: B008
    *,
    force: bool = False,
    listener: Listener = QUIET,
) -> Calibration:
    """Fit the items of every file of responses, each a task that is called as its file, and write what was found.

    Raises:
        SpecError: a file is not understood, there are too few models or items, or `out` exists.
        RunError: the disk is full, or something came to be at `out` meanwhile.
    """
    target = _target(out, force=force)
    names = [path.stem for path in responses]
    if len(set(names)) < len(names):
        raise SpecError(
            f"every file of responses is a task, and two are called the same: {', '.join(names)}; rename one"
        )
    panels = [read_panel(path) for path in responses]
    parts = []
    for name, panel in zip(names, panels, strict=True):
        listener.say(f"fitting {name}: {len(panel.models)} models, {len(panel.items)} items")
        parts.append(fit(panel, fitting, task=name))
    calibration = Calibration.joined(parts)
    write_calibration(target, calibration)
    return calibration


def dimensions_of(text: str) -> int | None:
    """A number of dimensions as it is typed; None for `auto`.

    Raises:
        SpecError: it is neither.
    """
    if text == AUTO:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SpecError(f"--dimensions: {text!r} is neither {AUTO} nor a number from 1")
    return int(text)


def _target(out: Path, *, force: bool) -> Target:
    """The place of the calibration; `force` lets another one be replaced that is no run's, and nothing else.

    Raises:
        SpecError: the suffix is no calibration's, or something is there that must stay.
    """
    check_suffix(out)
    return Target.file(out, _not_a_calibration, force=force)


def _not_a_calibration(path: Path) -> str | None:
    if is_run(path.parent):
        return f"is of the run in {path.parent}"
    try:
        read_calibration(path)
    except SpecError:
        return "is not a calibration"
    return None
