"""Text of others (names, paths, messages of libraries), fit to be shown on one line."""

import json
import re

# Control characters, ends of lines and paragraphs, marks that turn the direction of writing, and what no
# encoding has, or YAML reads.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def visible(text: object) -> str:
    """The text on one line: what would end the line, or command a terminal, as JSON writes it (`\\n`, `\\u001b`)."""
    return _HIDDEN.sub(lambda found: json.dumps(found.group())[1:-1], str(text))
