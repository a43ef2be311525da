"""Files of others are safe: what is written is whole, of the user's modes, and in place of nothing else's."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import DEMO_MODELS, Typed, refused

from evomerge.assemble import export, load
from evomerge.errors import RunError, SpecError
from evomerge.files import Target, changed_since, moves, new_folder, write_file, write_sums
from evomerge.report import write_report
from evomerge.trial import Failure

Cli = Callable[..., Typed]
NOBODY = 65534
WRITER = """
import os, signal, sys
from pathlib import Path
from evomerge.files import Target, new_folder
with new_folder(Target.folder(Path(sys.argv[1]))) as fresh:
    (fresh / "half").write_text("a half")
    print("writing", flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["one step", "by parts", "without links"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that know renames without replacing, that do not, and that have no hard links either."""

    def unknown(*_: object) -> None:
        raise OSError(moves.errno.EINVAL, "Invalid argument")

    def no_links(*_: object) -> None:
        raise PermissionError(moves.errno.EPERM, "Operation not permitted")

    if request.param != "one step":
        monkeypatch.setattr(moves, "_renameat2", unknown)
    if request.param == "without links":
        monkeypatch.setattr(Path, "hardlink_to", no_links)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def replaceable(path: Path) -> str | None:
    return changed_since(path) if path.is_dir() else None


def exported(out: Path) -> Path:
    """A folder with checksums, and a folder in it."""
    with new_folder(Target.folder(out)) as fresh:
        (fresh / "templates").mkdir()
        (fresh / "templates/tool.jinja").write_text("{{ x }}")
        (fresh / "config.json").write_text("{}")
        write_sums(fresh)
    return out


def recipe_file(path: Path, weight: float = 1.0) -> Path:
    sources = [{"parent": "maths", "layer": None, "weight": weight}]
    operator = {"kind": "linear", "normalize": False}
    layers = [{"blend": {"operator": operator, "sources": [{**sources[0], "layer": layer}]}} for layer in range(6)]
    outer = {key: {"sources": [{"parent": "maths"}]} for key in ("embeddings", "norm")}
    models = {"maths": {"path": str(DEMO_MODELS / "maths")}}
    plain = {"format": 1, "parents": models, "template": "maths", "dtype": "float16", "layers": layers, "outer": outer}
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.usefixtures("renames")
def test_a_folder_that_appeared_meanwhile_stays_and_the_work_is_kept(tmp_path: Path) -> None:
    for number, make in enumerate((Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere"))):
        out = tmp_path / f"OUT{number}"
        target = Target.folder(out)
        with pytest.raises(RunError, match=f"came to be there meanwhile.*OUT{number}-2"):  # noqa: SIM117
            with new_folder(target, rescue=True) as fresh:
                (fresh / "weights").write_text("an hour's work")
                make(out)
                if out.is_dir():
                    (out / "thesis.txt").write_text("precious")
        assert (tmp_path / f"OUT{number}-2/weights").read_text() == "an hour's work"
    assert (tmp_path / "OUT0/thesis.txt").read_text() == "precious"
    assert names(tmp_path) == {"OUT0", "OUT0-2", "OUT1", "OUT1-2", "OUT2", "OUT2-2"}


@pytest.mark.usefixtures("renames")
def test_an_empty_folder_is_filled_unless_somebody_else_does(tmp_path: Path) -> None:
    (tmp_path / "OUT").mkdir()
    target = Target.folder(tmp_path / "OUT")
    with pytest.raises(RunError, match="came to be there"), new_folder(target) as fresh:
        (tmp_path / "OUT/thesis.txt").write_text("precious")
        (fresh / "config.json").write_text("{}")
    assert names(tmp_path) == {"OUT"}
    (tmp_path / "OUT/thesis.txt").unlink()
    exported(tmp_path / "OUT")
    assert changed_since(tmp_path / "OUT") is None


@pytest.mark.usefixtures("renames")
def test_a_file_that_appeared_meanwhile_stays(tmp_path: Path) -> None:
    target = Target.file(tmp_path / "f")
    write_file(Target.file(tmp_path / "f"), b"precious")
    with pytest.raises(RunError, match="came to be there meanwhile"):
        write_file(target, b"ours")
    assert (tmp_path / "f").read_bytes() == b"precious"
    forced = Target.file(tmp_path / "f", replaceable, force=True)
    (tmp_path / "f").write_bytes(b"edited")
    with pytest.raises(RunError, match="was changed meanwhile"):
        write_file(forced, b"ours")
    assert (tmp_path / "f").read_bytes() == b"edited"
    write_file(Target.file(tmp_path / "f", replaceable, force=True), b"ours")
    assert (tmp_path / "f").read_bytes() == b"ours"
    assert names(tmp_path) == {"f"}


@pytest.mark.usefixtures("renames")
def test_force_replaces_what_was_there_at_the_start_and_is_still(tmp_path: Path) -> None:
    out = exported(tmp_path / "OUT")

    def added() -> None:
        (out / "notes.txt").write_text("precious")

    def edited() -> None:
        (out / "notes.txt").unlink()
        (out / "templates/tool.jinja").write_text("{{ y }}")

    for change in (added, edited):
        target = Target.folder(out, lambda _: None, force=True)
        with pytest.raises(RunError, match="was changed meanwhile"), new_folder(target):
            change()
        assert names(tmp_path) == {"OUT"}
    assert (out / "templates/tool.jinja").read_text() == "{{ y }}"
    with new_folder(Target.folder(out, lambda _: None, force=True)) as fresh:
        (fresh / "new").touch()
    assert names(out) == {"new"}
    assert names(tmp_path) == {"OUT"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: (out / "config.json").write_text("{ }"), "holds config.json, which was changed"),
        (lambda out: (out / "templates/mine").write_text(""), "holds templates/mine"),
        (lambda out: (out / "mine").mkdir(), "holds mine"),
        (lambda out: ((out / "config.json").unlink(), (out / "config.json").symlink_to("x")), "holds config.json"),
        (lambda out: (out / "SHA256SUMS").write_text("precious"), "other lines"),
        (lambda out: (out / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
    ],
)
def test_an_edited_folder_is_not_replaced(change: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    out = exported(tmp_path / "OUT")
    assert Target.folder(out, replaceable, force=True).before
    change(out)
    with pytest.raises(SpecError, match=words):
        Target.folder(out, replaceable, force=True)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_are_what_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with new_folder(Target.folder(tmp_path / "a/OUT")) as fresh:
            (fresh / "sub").mkdir()
            os.close(os.open(fresh / "sub/weights", os.O_CREAT | os.O_WRONLY, 0o600))
        write_file(Target.file(tmp_path / "f"), b"")
    finally:
        os.umask(before)
    for path in ("a", "a/OUT", "a/OUT/sub"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o777 & ~umask
    for path in ("a/OUT/sub/weights", "f"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_a_killed_process_left_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "deep/OUT"
    strange = tmp_path / "deep/.OUT.0123abcd"
    strange.mkdir(parents=True)
    (strange / "thesis.txt").write_text("precious")
    other = subprocess.Popen(
        [sys.executable, "-c", WRITER, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin and other.stdout
    assert other.stdout.readline() == "writing\n"
    (hidden,) = [path for path in out.parent.iterdir() if path != strange]
    with pytest.raises(SpecError, match="is being written by another process"):
        exported(out)
    assert (hidden / "new/half").exists(), "a living process's work is left alone"
    other.communicate("x")
    assert (hidden / "new/half").exists()
    exported(out)
    assert names(out.parent) == {"OUT", strange.name}
    assert (strange / "thesis.txt").read_text() == "precious"


def test_what_a_process_killed_while_it_replaced_had_moved_comes_back(tmp_path: Path) -> None:
    hidden = tmp_path / ".OUT.0123abcd"
    exported(hidden / "old")
    (hidden / "evomerge.lock").write_text("evomerge writes OUT\n")
    with pytest.raises(RunError, match="came to be there"):
        exported(tmp_path / "OUT")
    assert changed_since(tmp_path / "OUT") is None
    assert names(tmp_path) == {"OUT"}


def test_a_failure_leaves_nothing_not_even_folders_above(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(Target.folder(tmp_path / "a/b/OUT")) as fresh:
        (fresh / "half").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with what is no place to write to."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


PLACES = ("file", "file/x", "link", "dangling", "dangling/x", "loop/x", "x" * 300, "x\udcff", ".", "..", "/")


@pytest.mark.parametrize("out", PLACES)
def test_no_place_to_write_to(out: str, places: Path, run_file: Callable[..., Path], cli: Cli) -> None:
    out = out if out in (".", "..") else str(places / out)
    run, models = run_file(), [DEMO_MODELS / "base", DEMO_MODELS / "maths"]
    before = {path: path.read_bytes() for path in places.rglob("*") if path.is_file()}
    for command in (
        ["search", run, "--out", out],
        ["search", run, "--resume", "--out", out],
        ["merge", run, "--out", out],
        ["merge", run, "--out", out, "--force"],
        ["init", *models, "--out", out],
        *([["calibrate", "none.csv", "--out", f"{out}/c.npz"]] if out.strip("./") else []),
        ["demo", "--out", out],
    ):
        refused(cli(*command), "out")
    assert {path: path.read_bytes() for path in places.rglob("*") if path.is_file()} == before
    assert not (places / "nowhere").exists()


def test_a_place_that_takes_no_files(cli: Cli) -> None:
    refused(cli("init", DEMO_MODELS / "base", DEMO_MODELS / "maths", "--out", "/proc/x"), "/proc/x cannot be written")


def test_a_name_with_nul(tmp_path: Path) -> None:
    for look in (Target.folder, Target.file):
        with pytest.raises(SpecError, match="NUL"):
            look(tmp_path / "a\0b")


@contextmanager
def largest(size: int) -> Iterator[None]:
    """No file grows beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_half_written(cli: Cli, run_file: Callable[..., Path], tmp_path: Path) -> None:
    recipe, run = recipe_file(tmp_path / "r.yaml"), run_file()
    for size, command in (
        (100_000, ["merge", recipe, "--out", tmp_path / "sub/M"]),
        (1_000, ["init", DEMO_MODELS / "base", DEMO_MODELS / "maths", "--out", tmp_path / "i.yaml"]),
    ):
        with largest(size):
            found = cli(*command)
        assert (found.status, len(found.err.splitlines()[-1:])) == (1, 1), found
        assert "cannot be written (File too large) and nothing was left behind; make room" in found.err
        assert "Traceback" not in found.err
    assert names(tmp_path) == {recipe.name, run.name}


def test_weights_beyond_the_dtype_are_not_written(cli: Cli, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path / "r.yaml", weight=1e6)
    found = cli("merge", recipe, "--out", tmp_path / "M")
    assert found.status == 1
    assert "merged in float16, model.layers.0." in found.err
    assert "holds NaN or infinity" in found.err
    assert names(tmp_path) == {recipe.name}


def test_a_failed_candidate_is_exported_only_if_that_is_said(finished: dict[str, Path], tmp_path: Path) -> None:
    results = load(finished["one"])
    failure = Failure(stage="score", reason="logits are NaN")
    results.rows[17] = results.rows[17].model_copy(update={"failure": failure, "confirmed": None})
    with pytest.raises(SpecError, match=r"--pick number:17: candidate 17 failed \(score: logits are NaN\); failed:17"):
        export(results, "number:17", tmp_path / "M", formats=["recipe"])
    with pytest.raises(SpecError, match="candidate 16 did not fail"):
        export(results, "failed:16", tmp_path / "M", formats=["recipe"])
    (remark,) = export(results, "failed:17", tmp_path / "M", formats=["recipe"])
    assert "candidate 17 failed" in remark
    assert "**It failed in the search**" in (tmp_path / "M/README.md").read_text()


def test_a_report_replaces_reports_alone(cli: Cli, copy_of_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = copy_of_run("one")
    results = load(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(cli("report", run, "--out", run / "journal.jsonl"), "exists already")
    for path in before:
        with pytest.raises(SpecError, match="is not a report of evomerge's"):
            write_report(results, path, force=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert cli("report", run).status == 0
    assert cli("report", run).status == 0, "the page of a run is made anew"
    out = tmp_path / "r.html"
    assert cli("report", run, "--out", out).status == 0
    refused(cli("report", run, "--out", out), "exists already", "--force")
    assert cli("report", run, "--out", out, "--force").status == 0
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(out)
    out.write_text("<!doctype html>precious")
    refused(cli("report", run), "symbolic link")
    refused(cli("report", run, "--out", out, "--force"), "is not a report of evomerge's")
    assert out.read_text() == "<!doctype html>precious"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Nobody in particular, for whom modes count."""
    root = os.getuid() == 0
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_a_run_that_may_only_be_read_is_shown_and_exported(
    cli: Cli, copy_of_run: Callable[[str], Path], tmp_path: Path
) -> None:
    run, out = copy_of_run("one"), tmp_path / "elsewhere"
    out.mkdir()
    out.chmod(0o777)
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    modes = {path: mode for path in (*tmp_path.parents, tmp_path) if not (mode := path.stat().st_mode) & 0o001}
    try:
        for path in modes:
            path.chmod(0o755)
        with unprivileged():
            found = [
                cli("show", run),
                cli("report", run, "--out", out / "r.html"),
                cli("export", run, "--out", out / "M"),
            ]
            bad = cli("report", run)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
        for path in (run, *(each for each in run.rglob("*") if each.is_dir())):
            path.chmod(0o755)
    assert [each.status for each in found] == [0, 0, 0], found
    refused(bad, "report.html cannot be written", "may not be written to", "choose another --out")
    assert names(out) == {"r.html", "M"}
