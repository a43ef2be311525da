"""Names, paths and messages of others, at every door: nothing in them is obeyed, nothing breaks a line or a table."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Typed
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table
from simulated import Plan, begin, go_on, make_world

from evomerge.export.card import model_card
from evomerge.export.markdown import table_row
from evomerge.fitness import EstimatorSpec
from evomerge.spec import Budget, Nsga2Spec
from evomerge.terminal import Ticker
from evomerge.terminal.progress import Plain
from evomerge.terminal.standing import field_text
from evomerge.visible import visible

NASTY = (
    "[/bold] lists",
    "two\nlines\r\n| x | y |",
    "<script>alert(1)</script>&lt;b&gt;<!-- -->",
    "\x1b[31mred\x1b[0m\x9b2J\x07",
    "`code` **bold** __init__ _so_ ~~no~~ [a](b) ![c](d) \\| $x$",
    "\u202egnp.exe\u2028\u2029\ufeff :smile: {task} %s {0}",
    "quoted \" and ' twice",
    "\udcff\ufffe",
)
LABELS = (" ".join(NASTY[:4]), " ".join(NASTY[4:7]))
COMMANDS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]")
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(st.characters(), max_size=30))
"""Surrogates among them, as in names of files that are no UTF-8."""


@given(TEXTS)
@example("\n")
def test_a_string_is_one_line_of_a_terminal(text: str) -> None:
    screen = Plain(file=io.StringIO(), soft_wrap=True, highlight=False, width=1000, color_system=None)
    screen.print(text)
    table = Table(text, show_edge=False)
    table.add_row(text)
    screen.print(table)
    lines = screen.file.getvalue().splitlines()
    assert lines[0] == visible(text)
    assert len(lines) == 4
    assert not COMMANDS.search("\n".join(lines))
    assert text not in NASTY or visible(text).strip() in lines[3]


@given(TEXTS)
def test_a_cell_of_markdown_shows_the_text(text: str) -> None:
    """By CommonMark with tables, markup of every kind among them."""
    lines = [table_row(["head", text]), "|---|---|", table_row([text, "tail"])]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse("\n".join(lines))
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    for cell in (cells[1], cells[2]):
        kinds = {child.type for child in cell.children or ()}
        assert kinds <= {"text", "text_special"}
        assert "".join(child.content for child in cell.children or ()) == visible(text).strip()


@given(TEXTS)
def test_a_comment_of_yaml_stays_one(text: str) -> None:
    assert yaml.safe_load(f"# {visible(text)}.\na: 1\n") == {"a": 1}


@given(TEXTS)
def test_json_stays_json(text: str) -> None:
    assert json.loads(visible(json.dumps([text], ensure_ascii=False))) == [text]


@given(TEXTS)
def test_a_field_of_a_log_has_an_end(text: str) -> None:
    value = field_text(text)
    assert json.loads(value) == text if value.startswith('"') else value == text
    assert not COMMANDS.search(value) and "\n" not in value
    assert value.startswith('"') or (value and " " not in value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose objectives have such names, in a folder with one."""
    folder = tmp_path_factory.mktemp("nasty") / "[/bold] \x1b[31m | <b>"
    worlds = {name: make_world(28, i, search=40) for i, name in enumerate(LABELS)}
    plan = Plan(EstimatorSpec(items=8), Budget(evaluations=24), seed=1, optimizer=Nsga2Spec(population=8))
    go_on(worlds, begin(worlds, plan, folder))
    return folder


def test_show_is_of_whole_lines(run: Path, cli: Callable[..., Typed]) -> None:
    found = cli("show", run)
    assert found.status == 0
    assert not COMMANDS.search(found.out)
    shown = re.sub(r"\s", "", found.out)
    assert "[/bold]lists" in shown and ":smile:" in shown


def test_csv_and_json_of_them_are_read(run: Path, cli: Callable[..., Typed]) -> None:
    rows = list(csv.reader(cli("show", run, "--csv").out.splitlines()))
    assert len({len(row) for row in rows}) == 1
    assert any(head.startswith(visible(LABELS[1])) for head in rows[0])
    text = cli("show", run, "--json").out
    assert all(json.dumps(label, ensure_ascii=True) in json.dumps(json.loads(text)) for label in LABELS)
    assert not COMMANDS.search(text)


def test_card_and_page_show_them(run: Path, cli: Callable[..., Typed], tmp_path: Path) -> None:
    from evomerge.assemble import load

    results = load(run, None)
    card = model_card(results, results.best or results.front[0], results.recipe(results.front[0].number), run)
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(card.split("---\n", 2)[2])
    assert "<script" not in shown and "<strong>bold" not in shown and "<a " not in shown
    assert cli("report", run, "--out", tmp_path / "page.html").status == 0
    page = (tmp_path / "page.html").read_text()
    body = page[page.index("</script></head>") :]
    assert "alert(1)</script>" not in body and "<b>x" not in body


def test_progress_shows_them(run: Path) -> None:
    screen = Console(file=io.StringIO(), width=200, force_terminal=True, legacy_windows=False)
    ticker = Ticker(screen)
    ticker.enter("[/bold] stage")
    ticker._begin("search")
    assert ticker._bar is not None
    ticker._bar.update(ticker._bar.task_ids[0], standing="best [/red] 0.1")
    ticker.close()
    assert "[/bold] stage: search" in screen.file.getvalue()


@pytest.mark.parametrize("name", [name for name in NASTY if "/" not in name])
def test_an_error_is_one_line(name: str, cli: Callable[..., Typed], tmp_path: Path) -> None:
    found = cli("show", tmp_path / name)
    assert found.status == 2
    assert len(found.err.splitlines()) == 1 and found.err.startswith("evomerge: ")
    assert not COMMANDS.search(found.err)
