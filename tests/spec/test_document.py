"""Files that people write: what YAML would take for something else is refused, and so is what would fill the memory."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.errors import SpecError
from evomerge.presets import preset_folder
from evomerge.spec import read_json, read_yaml

ONE = {"b": 1, "c": 2}


def bomb() -> str:
    lines, before = ["a: &a [x, x, x, x, x, x, x, x, x, x]"], "a"
    for letter in "bcdefghi":
        lines.append(f"{letter}: &{letter} [{', '.join([f'*{before}'] * 10)}]")
        before = letter
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: [1.5, -2, 1.0e-3, true, null, ~]", {"a": 1, "b": [1.5, -2, 0.001, True, None, None]}),
        ("\ufeffa: 'no'\n'1': \"2026-11-30\"", {"a": "no", "1": "2026-11-30"}),
        ("a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}", {"a": ONE, "d": ONE, "e": {"b": 1, "c": 3}}),
        ("a: [&x {b: 1}, &y {b: 2, c: 2}]\nd: {<<: [*x, *y]}", {"a": [{"b": 1}, {"b": 2, "c": 2}], "d": ONE}),
        ("--- \na: |\n  two\n  lines\n...\n", {"a": "two\nlines\n"}),
    ],
)  # fmt: skip
def test_what_a_file_says_is_read(text: str, found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml") == found == yaml.safe_load(text)


def test_presets_are_read_as_the_library_reads_them() -> None:
    for kind in ("space", "fitness"):
        for path in preset_folder(kind).rglob("*.yaml"):
            if kind == "space" or path.parent == preset_folder(kind):  # The others are lm-eval's task files.
                assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("seed: 7\nbudget: {}\nseed: 8", "seed is written twice, in lines 1 and 3; leave one out"),
        ("models:\n  experts:\n    maths: x\n    maths: y", "models.experts.maths is written twice, in lines 3 and 4"),
        ("&a b: 1\n*a : 2", "b is written twice"),
        ("<<: {a: 1}\n<<: {b: 1}", "<< is written twice"),
        ("a: {<<: 3}", "a.<<: << takes in something else than keys and values"),
        ("a: &a [*a]", "line 1: a.0: *a contains itself"),
        ("a: *b", "*b stands for nothing that came before"),
        (bomb(), "with its aliases written out it takes more than 32 MiB"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 64 deep"),
        ("a: &a [[[[[[[[[[1]]]]]]]]]]\n" + "b: " + "[" * 60 + "*a" + "]" * 60, "nested more than 64 deep"),
        ("a: yes", "a: yes is true to YAML; write true, or put it in quotes"),
        ("no: x", "the key no is true or false to YAML; put it in quotes"),
        ("1: x", "the key 1 is a number to YAML"),
        ("a: 010", "010 is 8 to YAML; write 8"),
        ("a: 1:30", "1:30 is 90 to YAML"),
        ("a: 2026-11-30", "2026-11-30 is a date to YAML"),
        ("a: " + "9" * 5000, "is a number to YAML; give another one"),
        ("a: .nan", ".nan is not a finite number"),
        ("a: -.INF", "-.INF is not a finite number"),
        ("a: 1.0e+999", "is not a finite number"),
        ("a: !!python/object/apply:os.system [ls]", "tags are not read, here !!python/object/apply:os.system"),
        ("a: !function x.y", "tags are not read"),
        ("a: 1\n---\nb: 1", "line 2: a second document begins here"),
        ("? {a: 1}\n: b", "stands where a key is expected"),
        ("a: [1", "is not valid YAML (line"),
        ("a: \x00", "is not valid YAML"),
        ("a\\tb: 1\nc: @", "is not valid YAML (line 2"),
        ('"a\\nb": {c: yes}', "a\\nb.c: yes is true"),
        ("a: 1".encode("utf-16"), "is written in UTF-16; save it as UTF-8"),
        (b"a: \xff", "byte 3 is not UTF-8"),
        ("", "holds nothing; expected keys and values"),
        ("[1]", "holds [1]; expected keys and values"),
    ],
)
def test_what_would_be_misread_is_refused_in_one_line(content: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    started = time.perf_counter()
    with pytest.raises(SpecError) as refused:
        read_yaml(path)
    assert time.perf_counter() - started < 5
    text = str(refused.value)
    assert str(path) in text
    assert words in text
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300


def test_what_is_no_ordinary_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2**24 + b"\na: 1")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "large.yaml", Path("a" * 300), Path("a\0")):
        with pytest.raises(SpecError, match="not an ordinary file|cannot be read|larger than 16 MiB"):
            read_yaml(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "a is written twice"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ("[" * 100_000, "too deeply"),
        ("{", "is not valid JSON"),
        ("1" * 5000, "is not valid JSON"),
    ],
)
def test_json_is_refused_likewise(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SpecError, match=words):
        read_json(tmp_path / "x.json")
