"""Text of others in Markdown."""

import re
from collections.abc import Sequence

from evomerge.visible import visible

# An underline within a word is none, and names are full of them.
_MARKS = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")


def markdown(text: object) -> str:
    """The text so that it is shown as it is, on one line, in a cell of a table too."""
    return _MARKS.sub(r"\\\g<0>", visible(text))


def table_row(texts: Sequence[object]) -> str:
    """A row of a table, of texts of others."""
    return row_of([markdown(text) for text in texts])


def row_of(cells: Sequence[str]) -> str:
    """A row of a table, of cells in Markdown."""
    return f"| {' | '.join(cells)} |"
