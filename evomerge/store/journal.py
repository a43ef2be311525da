"""The lines of a journal: one event each, numbered, and sealed with all lines before it."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from evomerge.events import EVENT, Event

HEAD = re.compile(rb'\{"line":(\d{1,18}),"digest":"[0-9a-f]{32}"')


@dataclass(frozen=True)
class Line:
    """An event as it was read or written: `end` is where its line ends in the file.

    `digest` is that of the journal so far. It is None in formats 1 and 2, whose lines have a checksum each, but no tie
    to one another.
    """

    number: int
    end: int
    digest: str | None
    event: Event | None = None


def beginning(*, chained: bool) -> Line:
    """What the first line of a journal stands behind."""
    return Line(number=0, end=0, digest="" if chained else None)


def encoded(event: Event, before: Line) -> tuple[Line, bytes]:
    """The line of an event behind another one, and its bytes."""
    text = json.dumps(event.to_plain(), separators=(",", ":"), ensure_ascii=False).encode()
    digest = _digest(text, before)
    raw = _head(text, before.number + 1, digest) + b',"event":' + text + b"}\n"
    return Line(before.number + 1, before.end + len(raw), digest, event), raw


def decoded(raw: bytes, before: Line) -> Line:
    """What bytes say that stand behind another line.

    Raises:
        ValueError: they are no line, or not the one that was written there.
    """
    head, _, rest = raw.partition(b',"event":')
    text = rest.removesuffix(b"}\n")
    digest = _digest(text, before)
    if head != _head(text, before.number + 1, digest):
        raise ValueError(_difference(head, before))
    try:
        event = EVENT.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"it is not understood: {error.errors(include_input=False)[0]['msg']}") from None
    return Line(before.number + 1, before.end + len(raw), digest, event)


def split(content: bytes) -> Iterator[tuple[bytes, bool]]:
    """The lines of a file, each with whether it is whole. What a crash cuts short has no end, or holes of zeros."""
    lines = content.split(b"\n")
    for place, line in enumerate(lines[:-1]):
        is_last = place == len(lines) - 2 and not lines[-1]
        yield line + b"\n", not (is_last and b"\0" in line)
    if lines[-1]:
        yield lines[-1], False


def _head(text: bytes, number: int, digest: str | None) -> bytes:
    if digest is None:
        return b'{"crc":%d' % zlib.crc32(text)
    return b'{"line":%d,"digest":"%s"' % (number, digest.encode())


def _digest(text: bytes, before: Line) -> str | None:
    if before.digest is None:
        return None
    return hashlib.blake2b(b"%s %d " % (before.digest.encode(), before.number + 1) + text, digest_size=16).hexdigest()


def _difference(head: bytes, before: Line) -> str:
    """What is wrong with the head of a line, in words."""
    if before.digest is None:
        return "its checksum is wrong"
    known = HEAD.fullmatch(head)
    if known is None:
        return "it is no line of a journal"
    number, expected = int(known[1]), before.number + 1
    if number == expected:
        return "it was changed, or is of another run"
    return f"it is numbered {number}: {'lines before it are missing' if number > expected else 'it is out of place'}"
