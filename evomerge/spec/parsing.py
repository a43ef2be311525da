"""Text to values, once, with errors that say where and what to do."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from evomerge.errors import SpecError

T = TypeVar("T")
SECTION = re.compile(r": (stages\.\d+\.)?(space|fitness)$")
"""The end of the name of a section that is checked on its own."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        SpecError: no such file, not YAML, not a mapping.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(plain, dict):
        held = "nothing" if plain is None else json.dumps(plain, default=str)[:60]
        raise SpecError(f"{path} holds {held}; expected keys and values")
    return plain


def parse(kind: type[T], plain: Any, source: str) -> T:
    """A value from JSON types, strictly.

    Raises:
        SpecError: the first thing that is wrong, addressed by `source` and field.
    """
    try:
        text = json.dumps(plain, default=_unexpected)
        return TypeAdapter(kind).validate_json(text)
    except TypeError as error:
        raise SpecError(f"{source}: {error}") from None
    except ValidationError as error:
        raise SpecError(_first_error(error, plain, kind, source)) from None


def _unexpected(value: Any) -> Any:
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
    value = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = value if len(value) <= 60 else value[:57] + "..."
    forms = _described(kind) if several else {}
    field = next((str(step) for step in reversed(first["loc"]) if step in forms), None)
    if field is not None:
        return f" is {shown}; give {forms[field]}"
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(kind)
            near = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.startswith(name)]
            return f" is not a key here{f'; did you mean {near[0]}?' if near else '; take it out'}"
        case "missing":
            return " is missing; write it"
        case "value_error":
            said = str(first["ctx"]["error"])
            return f": {shown} {said}" if said.startswith("is ") else f": {said}"
        case "union_tag_invalid":
            return f" is {first['ctx']['tag']!r}; give one of {first['ctx']['expected_tags']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f" is {shown}; write keys and values below it"
        case _:
            return f" is {shown}; {first['msg'][0].lower()}{first['msg'][1:]}"


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
    return ".".join(parts)


def _known_keys(kind: Any) -> list[str]:
    return sorted({key for key, _ in _fields(kind)})


def _described(kind: Any) -> dict[str, str]:
    """What a field may hold, of those fields that say so."""
    return {key: field["description"] for key, field in _fields(kind) if "description" in field}


def _fields(kind: Any) -> list[tuple[str, dict[str, Any]]]:
    schema = TypeAdapter(kind).json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return [(key, field) for model in models for key, field in model.get("properties", {}).items()]
