"""Run folders damaged in every way that anybody thought of: the same numbers, or one line and nothing touched."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Typed, refused
from journals import JOURNAL, MARKS, SCORES, raw_lines

Cli = Callable[..., Typed]
Damage = Callable[[Path, Path], object]
ITEMS = "responses/items.json"
COMMANDS = ("show", "resume", "confirm", "report", "export")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        for path in folder.rglob("*")
    }


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda run, _: (run / JOURNAL).write_bytes(b"".join(change(raw_lines(run))))


def content(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda run, _: (run / name).write_bytes(change((run / name).read_bytes()))


def lost(name: str) -> Damage:
    return lambda run, _: (run / name).unlink()


def from_another(name: str) -> Damage:
    return lambda run, other: shutil.copy(other / name, run / name)


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def edited(line: bytes) -> bytes:
    return line.replace(b'"seconds":{', b'"seconds": {') if b'"seconds":{' in line else line.replace(b"}}", b"} }")


def folder_instead(name: str) -> Damage:
    def damage(run: Path, _: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


def pipe_instead(name: str) -> Damage:
    def damage(run: Path, _: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return damage


def line_of_another(run: Path, other: Path) -> None:
    own = raw_lines(run)
    (run / JOURNAL).write_bytes(b"".join([*own[:20], raw_lines(other)[20], *own[21:]]))


def both(run: Path, other: Path) -> None:
    (run / JOURNAL).write_bytes((run / JOURNAL).read_bytes() + (other / JOURNAL).read_bytes())


REFUSED: dict[str, tuple[Damage, list[str]]] = {
    "journal lost": (lost(JOURNAL), [JOURNAL, "is missing"]),
    "journal empty": (content(JOURNAL, lambda raw: b""), [JOURNAL, "damaged in line 1"]),
    "journal of zeros": (content(JOURNAL, lambda raw: bytes(len(raw))), [JOURNAL, "damaged in line 1"]),
    "journal half zeros": (content(JOURNAL, lambda raw: raw[:9999] + bytes(len(raw) - 9999)), [JOURNAL, "came after"]),
    "journal without its end": (lines(lambda own: own[:100]), [JOURNAL, "ends with line 100", "came after", "cut"]),
    "journal of one line": (lines(lambda own: own[:1]), [JOURNAL, "ends with line 1,", "came after", "to 0 bytes"]),
    "journal a folder": (folder_instead(JOURNAL), [JOURNAL, "is no file"]),
    "journal a pipe": (pipe_instead(JOURNAL), [JOURNAL, "is no file"]),
    "journal as in Windows": (lines(lambda own: [line[:-1] + b"\r\n" for line in own]), ["line 1"]),
    "journal with a mark": (content(JOURNAL, lambda raw: b"\xef\xbb\xbf" + raw), ["line 1"]),
    "first line lost": (lines(lambda own: own[1:]), ["line 1"]),
    "second line lost": (lines(lambda own: own[:1] + own[2:]), ["line 2", "numbered 3", "missing"]),
    "a line lost": (lines(lambda own: own[:100] + own[101:]), ["line 101", "numbered 102", "missing", "restore"]),
    "a line twice": (lines(lambda own: own[:4] + own[3:]), ["line 5", "numbered 4", "out of place"]),
    "last line twice": (lines(lambda own: [*own, own[-1]]), ["out of place"]),
    "two lines swapped": (lines(lambda own: [*own[:9], own[10], own[9], *own[11:]]), ["line 10", "numbered 11"]),
    "a line edited": (lines(lambda own: [*own[:50], edited(own[50]), *own[51:]]), ["line 51", "was changed"]),
    "last line edited": (lines(lambda own: [*own[:-1], edited(own[-1])]), ["was changed"]),
    "a bit of a digest": (lines(lambda own: [*own[:20], flipped(own[20], 26), *own[21:]]), ["line 21"]),
    "a blank line": (lines(lambda own: [*own[:20], b"\n", *own[20:]]), ["line 21", "no line of a journal"]),
    "a blank line at the end": (lines(lambda own: [*own, b"\n"]), ["no line of a journal"]),
    "a line of another run": (line_of_another, ["line 21", "another run"]),
    "lines of two runs": (both, ["is numbered 1", "out of place"]),
    "journal of another run": (from_another(JOURNAL), ["spec.yaml", "was changed"]),
    "spec lost": (lost("spec.yaml"), ["holds no run"]),
    "spec empty": (content("spec.yaml", lambda raw: b""), ["spec.yaml", "was changed"]),
    "spec no YAML": (content("spec.yaml", lambda raw: b"a: [" * 4000), ["spec.yaml", "was changed"]),
    "spec said older": (content("spec.yaml", lambda raw: raw.replace(b"format: 3", b"format: 2")), ["was changed"]),
    "spec a folder": (folder_instead("spec.yaml"), ["spec.yaml", "is no file"]),
    "direction edited": (
        content("spec.yaml", lambda raw: raw.replace(b"direction: null", b"direction: min")), ["was changed"]
    ),
    "items lost": (lost(ITEMS), ["items.json is missing"]),
    "items edited": (content(ITEMS, lambda raw: raw.replace(b"true", b"false", 1)), ["items.json was changed"]),
    "items cut": (content(ITEMS, lambda raw: raw[:-9]), ["items.json was changed"]),
    "items of another run": (from_another(ITEMS), ["items.json was changed"]),
    "responses lost": (lambda run, _: shutil.rmtree(run / "responses"), ["items.json is missing"]),
    "marks lost": (lost(MARKS), [MARKS, "is missing", "byte 0"]),
    "marks emptied": (content(MARKS, lambda raw: b""), [MARKS, "byte 0", "restore"]),
    "marks cut": (content(MARKS, lambda raw: raw[:-8]), [MARKS, "cut", "lose what follows"]),
    "a bit of marks": (content(MARKS, lambda raw: flipped(raw, 3000)), [MARKS, "damaged"]),
    "marks longer": (content(MARKS, lambda raw: raw + bytes(8)), [MARKS, "8 bytes that came after"]),
    "marks with a gap": (content(MARKS, lambda raw: raw[:800] + raw[808:] + bytes(8)), [MARKS, "damaged"]),
    "marks of another run": (from_another(MARKS), [MARKS, "damaged"]),
    "scores lost": (lost(SCORES), [SCORES, "is missing", "byte 0", MARKS, "to 0 bytes"]),
    "a bit of scores": (content(SCORES, lambda raw: flipped(raw, 3000)), [SCORES, "damaged", "lose what follows"]),
    "scores longer": (content(SCORES, lambda raw: raw + bytes(4)), [SCORES, "4 bytes that came after"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_run_is_refused_and_left_as_it_is(
    name: str, copy_of_run: Callable[[str], Path], finished: dict[str, Path], tmp_path: Path, cli: Cli
) -> None:
    run = copy_of_run("one")
    damage, words = REFUSED[name]
    damage(run, finished["two"])
    before = digests(run)
    assert before != digests(finished["one"])
    for command in COMMANDS:
        more = ("--out", tmp_path / "M") if command == "export" else ()
        refused(cli(command, run, *more), *words)
        assert digests(run) == before, command
        assert not (tmp_path / "M").exists()


HARMLESS: dict[str, Damage] = {
    "lock lost": lost("lock"),
    "other files": lambda run, _: [(run / name).write_text("mine") for name in ("notes.txt", "responses/x", ".hidden")],
    "a report": lambda run, _: (run / "report.html").write_text("<html>"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_a_run_does_not_rest_on_changes_nothing(
    name: str, copy_of_run: Callable[[str], Path], finished: dict[str, Path], cli: Cli
) -> None:
    run = copy_of_run("one")
    HARMLESS[name](run, finished["two"])
    before = digests(run)
    assert cli("show", run, "--json").out == cli("show", finished["one"], "--json").out
    assert digests(run) == before, "reading writes nothing"
    found = cli("resume", run)
    assert found.status == 0
    assert "is finished" in found.err
    assert digests(run) == before | {"lock": hashlib.sha256(b"").hexdigest()}


def test_a_moved_run_is_the_same(copy_of_run: Callable[[str], Path], finished: dict[str, Path], cli: Cli) -> None:
    run = copy_of_run("one")
    moved = run.rename(run.with_name("elsewhere"))
    assert json.loads(cli("show", moved, "--json").out) == json.loads(cli("show", finished["one"], "--json").out)


def test_a_last_line_cut_short_is_said(copy_of_run: Callable[[str], Path], cli: Cli, tmp_path: Path) -> None:
    run = copy_of_run("one")
    (run / JOURNAL).write_bytes((run / JOURNAL).read_bytes()[:-9])
    before = digests(run)
    for more in (["show", run], ["show", run, "--json"], ["report", run, "--out", tmp_path / "r.html"]):
        found = cli(*more)
        assert found.status == 0
        assert "the last line was cut short by a crash; it is dropped" in found.err
    assert digests(run) == before
    assert json.loads(cli("show", run, "--json").out)["state"] == "stopped"
