"""Text to values, once, with errors that say where and what to do."""

import difflib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from evomerge.errors import SpecError
from evomerge.spec.document import shown_path

T = TypeVar("T")
SECTION = re.compile(r": (stages\.\d+\.)?(space|fitness)$")
"""The end of the name of a section that is checked on its own."""


def plain_copy(value: Any, source: str) -> Any:
    """A copy in JSON types, of what a program made.

    Raises:
        SpecError: it contains itself, is nested too deeply, or holds something that a file cannot say.
    """
    return json.loads(_text(value, source))


def parse(kind: type[T], plain: Any, source: str) -> T:
    """A value from JSON types, strictly.

    Raises:
        SpecError: the first thing that is wrong, addressed by `source` and field.
    """
    try:
        return TypeAdapter(kind).validate_json(_text(plain, source))
    except ValidationError as error:
        raise SpecError(_first_error(error, plain, kind, source)) from None


def _text(plain: Any, source: str) -> str:
    try:
        return json.dumps(plain, default=_unexpected)
    except RecursionError:
        raise SpecError(f"{source} nests lists and mappings too deeply; write it flatter") from None
    except (TypeError, ValueError) as error:
        raise SpecError(f"{source}: {error}") from None


def _unexpected(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, expected text or a number; put it in quotes")


def _first_error(error: ValidationError, plain: Any, kind: Any, source: str) -> str:
    """The first complaint, in words: file, field, value, way out."""
    # A key that is not known comes first: it is often the one that is missing, misspelt.
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    first = errors[0]
    paths = [_readable(each["loc"], plain) for each in errors]
    path = paths[0]
    others = len(paths) - paths.count(path)
    more = f" (and {others} more)" if others else ""
    # A section is checked on its own, and its fields are named below it: `run.yaml: space.weight`.
    separator = "." if SECTION.search(source) else ": "
    return f"{source}{separator if path else ''}{path}{_complaint(first, kind, several=paths.count(path) > 1)}{more}"


def _complaint(first: Mapping[str, Any], kind: Any, *, several: bool) -> str:
    """What is wrong with a value; `several` complaints about one field mean that none of its forms fits."""
    name = str(first["loc"][-1]) if first["loc"] else ""
    shown = _shown(first["input"])
    forms = _described(kind) if several else {}
    field = next((str(step) for step in reversed(first["loc"]) if step in forms), None)
    if field is not None:
        return f" is {shown}; give {forms[field]}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind)
        near = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.startswith(name)]
        return f" is not a key here{f'; did you mean {near[0]}?' if near else '; take it out'}"
    return _worded(first, shown)


def _worded(first: Mapping[str, Any], shown: str) -> str:
    """Errors are of a hundred types; one that has no better words here keeps those that it came with."""
    if first["type"] == "missing":
        return " is missing; write it"
    if first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        return f": {shown} {said}" if said.startswith("is ") else f": {said}"
    if first["type"] == "union_tag_invalid":
        return f" is {first['ctx']['tag']!r}; give one of {first['ctx']['expected_tags']}"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f" is {shown}; write keys and values below it"
    return f" is {shown}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _readable(loc: tuple[int | str, ...], plain: Any) -> str:
    """A pydantic location without the tags of unions, which are no keys of what was written."""
    parts: list[str] = []
    here = plain
    for i, step in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(here, dict) and (step in here or last):
            here = here.get(step)
        elif isinstance(here, list | tuple) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        parts.append(str(step))
    return shown_path(parts)


def _known_keys(kind: Any) -> list[str]:
    return sorted({key for key, _ in _fields(kind)})


def _described(kind: Any) -> dict[str, str]:
    """What a field may hold, of those fields that say so."""
    return {key: field["description"] for key, field in _fields(kind) if "description" in field}


def _fields(kind: Any) -> list[tuple[str, dict[str, Any]]]:
    schema = TypeAdapter(kind).json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return [(key, field) for model in models for key, field in model.get("properties", {}).items()]
