"""Panels: three ways to write the same one."""

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from evomerge.errors import SpecError
from evomerge.estimate.panel import Panel, read_panel, write_csv

PANEL = Panel(("m, one", "m2"), ("a", "ü"), np.array([[1.0, np.nan], [0.25, 0.0]]))


def same(found: Panel) -> bool:
    names = (found.models, found.items) == (PANEL.models, PANEL.items)
    return names and np.array_equal(found.marks, PANEL.marks, equal_nan=True)


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "p.csv", PANEL)
    assert (tmp_path / "p.csv").read_text() == 'model,a,ü\n"m, one",1,\nm2,0.25,0\n'
    assert same(read_panel(tmp_path / "p.csv"))
    (tmp_path / "other.csv").write_bytes('\ufeff,a,ü\r\n"m, one",1.0, \r\n\r\nm2,.25,0\r\n'.encode())
    assert same(read_panel(tmp_path / "other.csv")), "as spreadsheets write it"


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", marks=PANEL.marks, items=np.array(PANEL.items), models=np.array(PANEL.models))
    assert same(read_panel(tmp_path / "p.npz"))


def test_parquet(tmp_path: Path) -> None:
    columns = {"model": list(PANEL.models), "a": [1.0, 0.25], "ü": pyarrow.array([None, 0], pyarrow.int64())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert same(read_panel(tmp_path / "p.parquet"))


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    names = {"items": np.array(["a", "b"]), "models": np.array(["m"])}
    for arrays, words in (
        ({**names}, "no array 'marks'"),
        ({"marks": np.ones((2, 2)), **names}, r"marks are \(2, 2\), but there are 1 models and 2 items"),
        ({"marks": np.array([["a", "b"]]), **names}, "not an archive of plain arrays"),
        ({"marks": np.array([[{}, 1]], dtype=object), **names}, "not an archive of plain arrays"),
        ({"marks": np.array([[0.5, np.inf]]), **names}, "column 'b': inf is not a mark"),
    ):
        np.savez(tmp_path / "p.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=words):
            read_panel(tmp_path / "p.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(SpecError, match="not an archive"):
        read_panel(tmp_path / "one.npz")


def test_other_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.table({"model": ["m"], "a": ["yes"]}), path)
    with pytest.raises(SpecError, match="not a table of numbers"):
        read_panel(path)
    parquet.write_table(pyarrow.table({"model": ["m"]}), path)
    with pytest.raises(SpecError, match="holds no marks"):
        read_panel(path)
    path.write_text("no parquet")
    with pytest.raises(SpecError, match="not a table of numbers"):
        read_panel(path)
    table = pyarrow.table([["m"], [1.0], [0.0]], names=["model", "a", "a"])
    parquet.write_table(table, path)
    with pytest.raises(SpecError, match="item 'a' occurs 2 times"):
        read_panel(path)
