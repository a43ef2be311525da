"""Items calibrated on what many models answered, from files to a file."""

from collections.abc import Sequence
from pathlib import Path

from evomerge.assemble.means import QUIET, Listener
from evomerge.errors import SpecError
from evomerge.estimate.calibrate import Fitting
from evomerge.estimate.calibrate import calibrate as fit
from evomerge.estimate.calibration import Calibration, check_suffix, read_calibration, write_calibration
from evomerge.estimate.panel import read_panel

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
    """
    _refuse_replacing(out, force=force)
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
    write_calibration(out, calibration)
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


def _refuse_replacing(out: Path, *, force: bool) -> None:
    """Stop before anything is overwritten; `force` replaces a calibration, and nothing else.

    Raises:
        SpecError: the suffix is no calibration's, or `out` exists and must stay.
    """
    check_suffix(out)
    if not out.parent.is_dir():
        raise SpecError(f"--out: {out.parent} is not a folder; make it, or choose another")
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise SpecError(f"{out} exists already; choose another --out, or give --force to replace it")
    try:
        read_calibration(out)
    except SpecError:
        raise SpecError(f"{out} is not a calibration; --force replaces nothing else, choose another --out") from None
