"""Files that people write, read to plain values: bounded, and without the surprises that YAML has ready."""

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from evomerge.errors import SpecError
from evomerge.limits import EXPANDED, FILE_BYTES, NESTING
from evomerge.visible import visible

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
DIGITS = 20
"""Of the longest whole number: no key takes a longer one."""
DECIMAL = re.compile(rf"[-+]?(0|[1-9][0-9]{{,{DIGITS - 1}}})")
PREFIX = "tag:yaml.org,2002:"
NAMED = {"null": "nothing", "bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
"""What YAML may take a text without quotes for."""
TOO_DEEP = f"lists and mappings are nested more than {NESTING} deep; write it flatter"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of texts to texts, finite numbers, true, false, null, lists and mappings.

    Raises:
        SpecError: no such file, too large, not YAML, not such a mapping, a key twice, a value that YAML takes for
            something else than what it looks like.
    """
    text = _text(path, "YAML")
    try:
        plain = _Builder(path).built(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = " ".join(str(error.problem or error.context).split())
        raise SpecError(f"{path} is not valid YAML ({place}{said})") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(plain, dict):
        held = "nothing" if plain is None else json.dumps(plain)[:60]
        raise SpecError(f"{path} holds {held}; expected keys and values")
    return plain


def read_json(path: Path, most: int = FILE_BYTES, way_out: str = "write it anew") -> Any:
    """What a JSON file of `most` bytes holds.

    Raises:
        SpecError: no such file, too large, not JSON, too deep, a key twice, a number that is not finite.
    """
    text = _text(path, "JSON", most)
    try:
        return json.loads(text, object_pairs_hook=_Pairs(path).each_once, parse_constant=_not_finite)
    except RecursionError:
        raise SpecError(f"{path} nests lists and mappings too deeply; write it flatter") from None
    except ValueError as error:
        raise SpecError(f"{path} is not valid JSON ({' '.join(str(error).split())}); {way_out}") from None


def shown_path(keys: Sequence[str]) -> str:
    """Keys from the outermost on, in one line."""
    shown = [visible(key)[:60] for key in keys[:8]]
    return ".".join((*shown, "...") if len(keys) > 8 else shown)


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _read_as(text: str, kind: str) -> str:
    """What YAML takes a text for, and how to write that."""
    if kind == "timestamp" or len(text) > DIGITS:
        return f"{NAMED[kind]} to YAML; give another one"
    read = json.dumps(yaml.safe_load(text))
    return f"{read} to YAML; write {read}"


@dataclass(frozen=True)
class _Pairs:
    path: Path

    def each_once(self, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise SpecError(f"{self.path}: {key} is written twice in one place; leave one out")
            found[key] = value
        return found


def _text(path: Path, what: str, most: int = FILE_BYTES) -> str:
    """A file's text, whatever byte order mark it begins with."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SpecError(f"{path} is not an ordinary file; give a {what} file")
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{path} cannot be read ({reason}); give a {what} file") from None
    if len(content) > most:
        raise SpecError(f"{path} is larger than {most // 2**20} MiB; give a {what} file that is smaller")
    if content[:2] in UTF_16:
        raise SpecError(f"{path} is written in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not valid {what} (byte {error.start} is not UTF-8); save it as UTF-8") from None


@dataclass
class _Open:
    """A list or mapping that is not closed yet: what is in it, and of a mapping the lines of its keys."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    key: str | None = None
    lines: dict[str, int] = field(default_factory=dict)
    merging: bool = False
    merged: list[dict[str, Any]] = field(default_factory=list)
    size: int = 16
    height: int = 1


class _Made(NamedTuple):
    """A value, with its size and height when every alias is written out."""

    value: Any
    size: int
    height: int


class _Builder:
    """Events of the parser to one value, without recursion; aliases are shared and counted as if written out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[_Open] = []
        self.anchors: dict[str, _Made] = {}
        self.found: list[Any] = []
        self.resolve = _LOADER("").resolve

    def built(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=_LOADER):
            self._take(event)
        return self.found[0] if self.found else None

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.CollectionEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent() if self.found:
                self._refuse(event, "a second document begins here (---); give one file for each")
            case yaml.StreamStartEvent() | yaml.StreamEndEvent() | yaml.DocumentStartEvent() | yaml.DocumentEndEvent():
                pass
            case _:
                raise TypeError(f"{event!r} is no event of YAML")

    def _refuse(self, event: Any, why: str) -> NoReturn:
        place = self._place()
        raise SpecError(f"{self.path}: line {event.start_mark.line + 1}: {f'{place}: ' if place else ''}{why}")

    def _place(self) -> str:
        """The key that is being read, from the outermost on."""
        parts = [each.key if isinstance(each.value, dict) else str(len(each.value)) for each in self.stack]
        return shown_path([part for part in parts if part is not None])

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _begin(self, event: Any, value: list[Any] | dict[str, Any]) -> None:
        self._check(event)
        if self._wants_key():
            self._refuse(event, "a list or mapping stands where a key is expected; write text")
        if len(self.stack) >= NESTING:
            self._refuse(event, TOO_DEEP)
        self.stack.append(_Open(value, event.anchor))
        self.anchors.pop(event.anchor, None)

    def _end(self, event: Any) -> None:
        each = self.stack.pop()
        if isinstance(each.value, dict) and each.merged:
            written = dict(each.value)
            each.value.clear()
            for values in (*reversed(each.merged), written):
                each.value.update(values)
        self._put(event, each.anchor, _Made(each.value, each.size, each.height))

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            within = any(each.anchor == event.anchor for each in self.stack)
            why = "contains itself" if within else "stands for nothing that came before"
            self._refuse(event, f"*{event.anchor} {why}; write out what is meant")
        made = self.anchors[event.anchor]
        if self._wants_key() and not isinstance(made.value, str):
            self._refuse(event, "something else than text stands where a key is expected; write text")
        self._put(event, None, made)

    def _scalar(self, event: Any) -> None:
        self._check(event)
        value: Any = event.value
        if event.implicit[0]:
            kind = self.resolve(yaml.ScalarNode, event.value, (True, False)).removeprefix(PREFIX)
            value = self._key(event, kind) if self._wants_key() else self._value(event, kind)
        self._put(event, event.anchor, _Made(value, 16 + len(event.value), 0))

    def _check(self, event: Any) -> None:
        if event.tag is not None:
            tag = event.tag.replace(PREFIX, "!!")
            self._refuse(event, f"tags are not read, here {tag}; take it out, or put the text in quotes")

    def _key(self, event: Any, kind: str) -> str:
        self.stack[-1].merging = kind == "merge"
        if kind in NAMED and kind != "merge":
            shown = event.value[:60] or "that is empty"
            self._refuse(event, f"the key {shown} is {NAMED[kind]} to YAML; put it in quotes")
        return str(event.value)

    def _value(self, event: Any, kind: str) -> Any:
        """A scalar without quotes as what it looks like, if that is what YAML takes it for."""
        text = event.value
        found: Any = text
        match kind:
            case "null":
                found = None
            case "bool" if text.lower() in ("true", "false"):
                found = text.lower() == "true"
            case "int" if DECIMAL.fullmatch(text):
                found = int(text)
            case "float" if not (":" in text or "_" in text):
                found = self._float(event)
            case "bool" | "int" | "float" | "timestamp":
                self._refuse(event, f"{text[:60]} is {_read_as(text, kind)}, or put it in quotes")
            case "str" | "merge" | "value" | "yaml":
                pass
            case _:
                raise TypeError(f"{kind} is no kind of scalar that YAML knows")
        return found

    def _float(self, event: Any) -> float:
        value = math.nan if event.value.lower().endswith(("inf", "nan")) else float(event.value)
        if not math.isfinite(value):
            self._refuse(event, f"{event.value[:60]} is not a finite number; give one")
        return value

    def _put(self, event: Any, anchor: str | None, made: _Made) -> None:
        """Set a value where it belongs, and keep it for aliases."""
        if anchor is not None:
            self.anchors[anchor] = made
        if not self.stack:
            self.found.append(made.value)
            return
        here = self.stack[-1]
        here.size += made.size
        here.height = max(here.height, made.height + 1)
        if here.size > EXPANDED:
            self._refuse(event, f"with its aliases written out it takes more than {EXPANDED // 2**20} MiB; write less")
        if len(self.stack) + made.height > NESTING:
            self._refuse(event, TOO_DEEP)
        if isinstance(here.value, list):
            here.value.append(made.value)
        elif here.key is None:
            self._name(event, here, made.value)
        else:
            self._fill(event, here, here.value, made.value)

    def _name(self, event: Any, here: _Open, key: str) -> None:
        line = event.start_mark.line + 1
        if key in here.lines:
            place = ".".join(part for part in (self._place(), shown_path([key])) if part)
            twice = f"in lines {here.lines[key]} and {line}"
            raise SpecError(f"{self.path}: {place} is written twice, {twice}; leave one out")
        here.key = key
        here.lines[key] = line

    def _fill(self, event: Any, here: _Open, values: dict[str, Any], value: Any) -> None:
        """Set what stands behind a key, or keep it for the end if the key is `<<`."""
        if here.merging:
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                self._refuse(event, "<< takes in something else than keys and values; give an alias of a mapping")
            here.merged += sources
        else:
            values[here.key or ""] = value
        here.key, here.merging = None, False
