"""Journals cut, rewritten, and as older versions wrote them."""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conftest import edited

from evomerge.events import EVENT, Event
from evomerge.store import encoded
from evomerge.store.journal import beginning

JOURNAL = "journal.jsonl"
MARKS, SCORES = "responses/marks.f64", "responses/scores.f32"


def raw_lines(run: Path) -> list[bytes]:
    return (run / JOURNAL).read_bytes().splitlines(keepends=True)


def events_of(run: Path) -> list[Event]:
    return [
        EVENT.validate_python(EVENT.validate_json(json.dumps(json.loads(line)["event"]))) for line in raw_lines(run)
    ]


def end_of_marks(line: bytes) -> int:
    """Where the marks end that a line refers to; 0 if it refers to none."""
    at: dict[str, Any] | None = json.loads(line)["event"].get("marks")
    return 0 if at is None else at["offset"] + 8 * sum(n for rows in at["counts"].values() for n in rows.values())


def end_of_scores(line: bytes) -> int:
    """The same of scores."""
    at: dict[str, Any] | None = json.loads(line)["event"].get("scores")
    return 0 if at is None else at["offset"] + 4 * sum(map(sum, at["counts"].values()))


def places(run: Path, step: int, case: str) -> range:
    """Where to cut a journal: every so many lines, from another one on in each case, so that all cases meet all."""
    return range(1 + zlib.crc32(case.encode()) % step, len(raw_lines(run)), step)


def cut(run: Path, count: int, torn: bytes = b"") -> None:
    """Leave of a run what kill -9 leaves behind so many lines: with what no line refers to, if it came next."""
    lines = raw_lines(run)
    (run / JOURNAL).write_bytes(b"".join(lines[:count]) + torn)
    os.truncate(run / MARKS, max(map(end_of_marks, lines[: count + 1])))
    if (run / SCORES).exists():
        os.truncate(run / SCORES, max(map(end_of_scores, lines[: count + 1])))


def write_journal(run: Path, events: Iterable[Event], *, chained: bool = True) -> None:
    """A journal of these events."""
    line, content = beginning(chained=chained), []
    for event in events:
        line, raw = encoded(event, line)
        content.append(raw)
    (run / JOURNAL).write_bytes(b"".join(content))


def make_older(run: Path, number: int = 2) -> Path:
    """A run folder in an older format, as a version before this wrote it."""
    write_journal(run, events_of(run)[1:], chained=False)

    def older(plain: dict[str, Any]) -> None:
        plain["format"] = number
        plain.pop("stage", None)
        if number == 1:
            del plain["spec"]["fitness"]["estimator"]

    edited(run / "spec.yaml", older)
    return run
