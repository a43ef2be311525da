"""What many models answered on the same items, read from a file."""

import csv
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.errors import SpecError
from evomerge.estimate.evidence import Floats
from evomerge.files import Target, write_file

FORMATS = (".csv", ".npz", ".parquet")


@dataclass(frozen=True)
class Panel:
    """Marks between 0 and 1 of models on items; NaN where there is none."""

    models: tuple[str, ...]
    items: tuple[str, ...]
    marks: Floats  # (models, items)


def read_panel(path: Path) -> Panel:
    """The panel in a file, whose suffix says how it is written.

    `.csv`: item ids in the first row, model names in the first column, nothing where there is no mark. `.parquet`: the
    same columns. `.npz`: arrays `marks` (models, items), `items` and `models`.

    Raises:
        SpecError: the file cannot be read, or what it says is not a panel.
    """
    if path.suffix not in FORMATS:
        raise SpecError(
            f"{path}: responses are read from {', '.join(FORMATS)}, not {path.suffix or 'without a suffix'}"
        )
    try:
        if path.suffix == ".csv":
            return _checked(path, _from_csv(path))
        return _checked(path, _from_npz(path) if path.suffix == ".npz" else _from_parquet(path))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}); give another file") from None


def write_csv(path: Path, panel: Panel) -> None:
    """Write a panel in the form that `read_panel` reads; whole marks without a point.

    Raises:
        SpecError: the file exists, or its folder cannot be written to.
        RunError: the disk is full.
    """
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", *panel.items])
    for model, row in zip(panel.models, panel.marks, strict=True):
        writer.writerow([model, *("" if np.isnan(mark) else f"{mark:.12g}" for mark in row)])
    write_file(Target.file(path), file.getvalue().encode())


def _from_csv(path: Path) -> Panel:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: is not csv in UTF-8 ({error})") from None
    if not rows:
        raise SpecError(f"{path}: is empty; item ids go into the first row, model names into the first column")
    items, marks = tuple(rows[0][1:]), np.full((len(rows) - 1, len(rows[0]) - 1), np.nan)
    for i, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise SpecError(f"{path}: row {row[0]!r} has {len(row)} cells, the first row {len(rows[0])}; fill it up")
        for j, cell in enumerate(row[1:]):
            if cell.strip():
                marks[i, j] = _number(cell, f"{path}: row {row[0]!r}, column {items[j]!r}")
    return Panel(tuple(row[0] for row in rows[1:]), items, marks)


def _number(cell: str, where: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if np.isnan(number):
        raise SpecError(f"{where}: {cell!r} is not a number; give a mark from 0 to 1, or leave it empty")
    return number


def _from_npz(path: Path) -> Panel:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: dict[str, Any] = {name: arrays[name] for name in ("marks", "items", "models")}
            marks = found["marks"].astype(np.float64)
    except KeyError as error:
        missing = str(error).split()[0].strip("\"'")
        raise SpecError(f"{path}: has no array {missing!r}; it needs marks (models, items), items and models") from None
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path}: is not an archive of plain arrays ({error}); write it with numpy.savez") from None
    items, models = _names(found["items"]), _names(found["models"])
    if marks.shape != (len(models), len(items)):
        raise SpecError(f"{path}: marks are {marks.shape}, but there are {len(models)} models and {len(items)} items")
    return Panel(models, items, marks)


def _from_parquet(path: Path) -> Panel:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        columns = [column.to_numpy() for column in table.columns[1:]]
        marks = np.array([column.astype(np.float64) for column in columns]).T
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise SpecError(f"{path}: is not a table of numbers after a first column of model names ({line})") from None
    return Panel(_names(table.columns[0].to_pylist()), tuple(table.column_names[1:]), marks)


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _checked(path: Path, panel: Panel) -> Panel:
    """The panel, if it holds marks, names occur once, and marks are between 0 and 1."""
    if not panel.marks.size:
        raise SpecError(f"{path}: holds no marks; there is a row for each model, and a column for each item")
    for what, names in (("item", panel.items), ("model", panel.models)):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise SpecError(f"{path}: {what} {name!r} occurs {times} times; keep one of them")
    wrong = np.argwhere((panel.marks < 0) | (panel.marks > 1))
    if len(wrong):
        i, j = wrong[0]
        where = f"row {panel.models[i]!r}, column {panel.items[j]!r}"
        raise SpecError(f"{path}: {where}: {panel.marks[i, j]:g} is not a mark; marks are from 0 to 1")
    return panel
