"""Files of numbers that a journal refers to, block by block, each with a checksum."""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, assert_never

from evomerge.errors import SpecError
from evomerge.events import MarksAt, ScoresAt
from evomerge.store.files import read_bytes

MARKS, SCORES = "responses/marks.f64", "responses/scores.f32"
MARK, SCORE = 8, 4
"""Bytes of a mark and of a score."""


class Block(NamedTuple):
    """Numbers that a line was the first to refer to."""

    offset: int
    size: int
    crc: int
    line: int


class Blocks:
    """The blocks of one file, in the order of the lines that refer to them; `what` they hold is said of damage."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.known: dict[int, Block] = {}
        """By their offsets, in the order of the file."""
        self.end = 0
        """Where numbers end that were referred to."""

    def take(self, block: Block) -> None:
        """Take in what a line refers to: the next block, or one that an earlier line referred to.

        Raises:
            ValueError: it is neither.
        """
        if block.offset != self.end:
            known = self.known.get(block.offset)
            if known is None or known[:3] != block[:3]:
                raise ValueError(
                    f"its {self.what} begin at byte {block.offset}, and {self.end} is the next: a line is missing"
                )
        elif block.size or block.offset not in self.known:
            self.known[block.offset] = block
            self.end += block.size

    def before(self, line: int) -> int:
        """Bytes that lines before this one refer to."""
        return min((block.offset for block in self.known.values() if block.line >= line), default=self.end)


class Column:
    """One file of numbers as it was read: what its blocks refer to is verified at once, later ones when asked for."""

    def __init__(self, folder: Path, name: str, blocks: Blocks) -> None:
        self.path = folder / name
        self.blocks = blocks
        self._verified = (read_bytes(self.path) or b"")[: blocks.end]

    def damaged(self) -> Block | None:
        """The first block that is not what it was."""
        content = memoryview(self._verified)
        for block in self.blocks.known.values():
            numbers = content[block.offset : block.offset + block.size]
            if len(numbers) < block.size or zlib.crc32(numbers) != block.crc:
                return block
        return None

    def read(self, at: MarksAt | ScoresAt) -> bytes:
        """A block's bytes.

        Raises:
            SpecError: the file that holds them was cut or changed since it was read.
        """
        end = at.offset + size_of(at)
        return self._verified[at.offset : end] if end <= len(self._verified) else self._read_later(at)

    def _read_later(self, at: MarksAt | ScoresAt) -> bytes:
        block = b""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(at.offset)
            block = file.read(size_of(at))
        if zlib.crc32(block) != at.crc:
            raise SpecError(f"{self.path} was cut or damaged at byte {at.offset}; restore it from a copy")
        return block


def counted(at: MarksAt | ScoresAt) -> Iterator[int]:
    """How many numbers there are, row by row."""
    match at:
        case MarksAt():
            yield from (count for rows in at.counts.values() for count in rows.values())
        case ScoresAt():
            yield from (count for rows in at.counts.values() for count in rows)
        case _:
            assert_never(at)


def size_of(at: MarksAt | ScoresAt) -> int:
    """Bytes of a block of marks or scores."""
    return (MARK if isinstance(at, MarksAt) else SCORE) * sum(counted(at))
