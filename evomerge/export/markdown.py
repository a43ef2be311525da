"""Text of others in Markdown."""

import re
from collections.abc import Sequence

from evomerge.visible import visible

# An underline within a word is none, and names are full of them.
_MARKS = re.compile(r"[\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_])")


def markdown(text: object) -> str:
    """The text so that it is shown as it is, on one line, in a cell of a table too."""
    return _MARKS.sub(r"\\\g<0>", visible(text))


def table_row(cells: Sequence[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(markdown, cells))} |"
