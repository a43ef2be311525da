"""What is known of items before a search: their parameters, anchors, and how far predictions from them are off."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, ValidationError

from evomerge.errors import SpecError
from evomerge.estimate.evidence import Floats, Ints
from evomerge.estimate.irt import ItemParameters
from evomerge.files import Target, write_file
from evomerge.limits import CALIBRATION_BYTES
from evomerge.spec import read_json
from evomerge.values import Value

FORMAT = "evomerge calibration 1"
FORMATS = (".npz", ".json")
AGAIN = "make it again with evomerge calibrate"


class DimensionFit(Value):
    """How well so many dimensions predict models that were held out."""

    dimensions: int
    loss: float
    bias: float


class TaskFit(Value):
    """How a task's items were fitted, and how well.

    Losses are mean log-losses, in nats, of held-out models' marks on the odd items, abilities being fitted to the even
    ones; `baseline` predicts every item's mean. `bias` is how far the predicted mean was off on average, `variance`
    that of a model's marks over items: gp-IRT's b and s^2. `tried` is every number of dimensions that was.
    """

    task: str
    models: int
    items: int
    dimensions: int
    loss: float
    baseline: float
    bias: float = Field(ge=0)
    variance: float = Field(ge=0)
    tried: tuple[DimensionFit, ...] = ()

    def share(self, drawn: int, *, anchored: bool) -> float:
        """The raw mean's best share (lambda) in gp-IRT: b^2 / (b^2 + v), v = s^2 / n, or s^2 / 4n of anchors."""
        own = self.variance / (drawn * (4 if anchored else 1))
        return self.bias**2 / (self.bias**2 + own) if self.bias else 0.0

    def lines(self) -> list[str]:
        """How well held-out models are predicted, as a table."""
        table = [("dimensions", "log-loss", "error of the mean")]
        for trial in self.tried:
            chosen = " *" if trial.dimensions == self.dimensions else ""
            table.append((f"{trial.dimensions}{chosen}", f"{trial.loss:.4f}", f"{trial.bias:.4f}"))
        table.append(("none", f"{self.baseline:.4f}", ""))
        return [f"  {first:10}  {second:>8}  {third:>17}".rstrip() for first, second, third in table]


@dataclass(frozen=True)
class Calibration:
    """Items of one or more tasks. Each task's abilities are its own: parameters of two tasks do not go together."""

    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    parameters: ItemParameters
    masses: Floats  # (items,), of anchors; 0 elsewhere, summing to 1 over each task
    fits: tuple[TaskFit, ...]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' calibrations as one; slopes of tasks with fewer dimensions are filled up with zeros.

        Raises:
            SpecError: an item occurs in two of them.
        """
        ids = tuple(key for part in parts for key in part.ids)
        if len(set(ids)) < len(ids):
            raise SpecError(f"{len(ids) - len(set(ids))} items are in two tasks' responses; leave them in one")
        most = max(part.parameters.slopes.shape[1] for part in parts)
        slopes = [np.pad(s, ((0, 0), (0, most - s.shape[1]))) for s in (part.parameters.slopes for part in parts)]
        return cls(
            ids=ids,
            tasks=tuple(task for part in parts for task in part.tasks),
            parameters=ItemParameters(np.vstack(slopes), np.concatenate([part.parameters.offsets for part in parts])),
            masses=np.concatenate([part.masses for part in parts]),
            fits=tuple(fit for part in parts for fit in part.fits),
        )

    def parameters_for(self, ids: Sequence[str]) -> ItemParameters:
        """Parameters of these items of one task, in their order, without dimensions that are none of the task's.

        Raises:
            SpecError: some of them are not here.
        """
        places = self._places(ids)
        slopes = self.parameters.slopes[places]
        used = max(1, int(np.flatnonzero(slopes.any(axis=0)).max(initial=0)) + 1)
        return ItemParameters(slopes[:, :used], self.parameters.offsets[places])

    def anchors_for(self, ids: Sequence[str]) -> tuple[Ints, Floats]:
        """Places among these items of one task's anchors, and their masses.

        Raises:
            SpecError: some items are not here, or not all of the task's anchors are among them.
        """
        places = self._places(ids)
        masses = self.masses[places]
        if masses.sum() < 1 - 1e-6:
            wanted = {self.tasks[place] for place in places}
            every = sum(bool(mass) for mass, task in zip(self.masses, self.tasks, strict=True) if task in wanted)
            raise SpecError(
                f"of the calibration's {every} anchors, {int((masses > 0).sum())} are among the {len(ids)} items to"
                " draw from; draw from all that were calibrated, or calibrate on these"
            )
        chosen = np.flatnonzero(masses)
        return chosen, masses[chosen]

    def fit_for(self, ids: Sequence[str]) -> TaskFit:
        """How the task of these items was fitted.

        Raises:
            SpecError: some items are not here.
        """
        task = self.tasks[self._places(ids)[0]]
        return next(fit for fit in self.fits if fit.task == task)

    def lines(self) -> list[str]:
        """What a person reads of it."""
        lines = []
        for fit in self.fits:
            anchors = sum(bool(m) for m, task in zip(self.masses, self.tasks, strict=True) if task == fit.task)
            lines += [f"{fit.task or 'items'}: {fit.models} models, {fit.items} items, {anchors} anchors", *fit.lines()]
        return lines

    def _places(self, ids: Sequence[str]) -> Ints:
        where = {key: place for place, key in enumerate(self.ids)}
        missing = sum(key not in where for key in ids)
        if missing:
            raise SpecError(
                f"{missing} of {len(ids)} items are not in the calibration, which has {len(self.ids)}; calibrate"
                " on responses to the same documents"
            )
        return np.array([where[key] for key in ids], np.int64)


def write_calibration(out: Path | Target, calibration: Calibration) -> None:
    """Write a calibration whole or not at all, as `.npz` or `.json` by the suffix.

    Raises:
        SpecError: the suffix is another, `out` exists, or its folder cannot be written to.
        RunError: the disk is full, or something came to be at `out` meanwhile.
    """
    target = out if isinstance(out, Target) else Target.file(out)
    check_suffix(target.out)
    arrays, content = _to_arrays(calibration), BytesIO()
    if target.out.suffix == ".npz":
        np.savez_compressed(content, **arrays)
    else:
        plain = {name: array.tolist() for name, array in arrays.items()}
        content.write(json.dumps(plain, ensure_ascii=False, indent=1).encode())
    write_file(target, content.getvalue())


NO_CALIBRATION = (
    ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError, MemoryError, EOFError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise where a file is not what it says, or would not fit in memory."""


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        SpecError: the file is not there, or is not a calibration.
    """
    check_suffix(path)
    try:
        if path.suffix == ".json":
            arrays = {name: np.asarray(value) for name, value in read_json(path, CALIBRATION_BYTES, AGAIN).items()}
        else:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        return _from_arrays(arrays)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}); give another file") from None
    except KeyError as error:
        raise SpecError(f"{path}: is not a calibration, there is no {error}; {AGAIN}") from None
    except NO_CALIBRATION as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise SpecError(f"{path}: is not a calibration ({line}); {AGAIN}") from None


def check_suffix(path: Path) -> None:
    """See that a calibration can be called this.

    Raises:
        SpecError: it cannot.
    """
    if path.suffix not in FORMATS:
        raise SpecError(f"{path}: a calibration is {' or '.join(FORMATS)}, not {path.suffix or 'without a suffix'}")


def _to_arrays(calibration: Calibration) -> dict[str, Any]:
    return {
        "format": np.array(FORMAT),
        "ids": np.array(calibration.ids),
        "tasks": np.array(calibration.tasks),
        "slopes": calibration.parameters.slopes,
        "offsets": calibration.parameters.offsets,
        "masses": calibration.masses,
        "fits": np.array([fit.model_dump_json() for fit in calibration.fits]),
    }


def _from_arrays(arrays: dict[str, Any]) -> Calibration:
    """Checked, since the file may be anybody's."""
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"it says {str(arrays['format'])!r}, not {FORMAT!r}")
    ids, tasks = (tuple(str(name) for name in arrays[key]) for key in ("ids", "tasks"))
    slopes, offsets, masses = (arrays[key].astype(np.float64) for key in ("slopes", "offsets", "masses"))
    shapes = {array.shape for array in (offsets, masses)} | {(len(tasks),), slopes.shape[:1]}
    if shapes != {(len(ids),)} or slopes.ndim != 2 or len(set(ids)) < len(ids):
        raise ValueError("its arrays are not of the same distinct items")
    if not all(np.isfinite(array).all() for array in (slopes, offsets, masses)):
        raise ValueError("a number in it is not finite")
    try:
        fits = tuple(TaskFit.model_validate_json(str(text)) for text in arrays["fits"])
    except ValidationError as error:
        raise ValueError(f"fits: {error.errors()[0]['msg']}") from None
    if {fit.task for fit in fits} != set(tasks):
        raise ValueError("its fits are not of its tasks")
    return Calibration(ids, tasks, ItemParameters(slopes, offsets), masses, fits)
