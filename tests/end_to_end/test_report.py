"""The report: one file that opens anywhere, looked at by a real browser."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Typed
from journals import cut

from evomerge.assemble import load
from evomerge.events import Evaluated
from evomerge.results import number
from evomerge.store import RunStore
from evomerge.trial import Failure

Cli = Callable[..., Typed]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=10000",
]
SECTIONS = (
    "What the search believed, and what was true",
    "Convergence",
    "Coefficients",
    "Tasks",
    "Failures",
    "Time",
    "Environment",
)


def browse(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_page_is_self_contained_and_says_what_was_found(
    name: str, cli: Cli, finished: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    found = cli("report", finished[name], "--out", out)
    assert found.status == 0, found.err
    text = out.read_text()
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", body), "nothing is fetched from elsewhere"
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in text
    results = load(finished[name])
    assert results.best is not None
    for label in results.objectives:
        assert number(results.best, "confirmed", label) in body


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; .ci/run installs it")
@pytest.mark.parametrize("name", ["one", "two"])
def test_a_browser_draws_every_figure(name: str, cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    cli("report", finished[name], "--out", out)
    drawn = browse(out, tmp_path / "profile", "--dump-dom").stdout
    figures = drawn.count('class="main-svg"')
    assert figures >= 5, "front, beliefs, convergence, coefficients, time"
    assert 'class="heatmaplayer' in drawn
    assert "Error" not in re.sub(r"<script.*?</script>", "", drawn, flags=re.DOTALL)
    picture = tmp_path / "report.png"
    browse(out, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1140,3600")
    assert picture.stat().st_size > 50_000, "a blank page is smaller"


def test_a_run_without_results_has_a_report_too(cli: Cli, copy_of_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = copy_of_run("two")
    for count, words in ((70, "optimistic"), (1, "No candidate has been scored yet")):
        cut(run, count)
        assert cli("show", run).status == 0
        out = tmp_path / f"{count}.html"
        assert cli("report", run, "--out", out).status == 0
        assert words in out.read_text()


def test_names_cannot_break_out_of_the_page(cli: Cli, copy_of_run: Callable[[str], Path], tmp_path: Path) -> None:
    run = copy_of_run("one")
    bad = run.rename(run.with_name("<b>run"))
    assert cli("report", bad, "--out", tmp_path / "r.html").status == 0
    assert "<b>run" not in (tmp_path / "r.html").read_text()


def test_a_finalist_that_failed_to_be_confirmed_is_left_out(copy_of_run: Callable[[str], Path], cli: Cli) -> None:
    run = copy_of_run("two")
    results = load(run)
    lost = next(n for n in results.finalists if results.best is not None and n != results.best.number)
    works = {w for w, each in results.state.works.items() if each.number == lost and each.draw.pool == "confirm"}
    run = run.with_name("failed")
    store = RunStore.create(run, results.store.file, results.store.table)
    for event in results.store.events()[1:]:
        if isinstance(event, Evaluated):
            marks = None if event.work in works else results.store.marks(event)
            failure = Failure(stage="score", reason="out of memory") if event.work in works else event.failure
            event = event.model_copy(update={"marks": marks and store.keep_marks(marks), "failure": failure})
        store.append(event)
    store.close()
    assert load(run).rows[lost].confirmed is None
    for command in (["show"], ["show", "--json"], ["show", "--csv"], ["report"]):
        assert cli(command[0], run, *command[1:]).status == 0
