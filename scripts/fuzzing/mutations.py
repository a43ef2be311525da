"""Random damage to files: bytes, lines, and keys of YAML and JSON."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1.5, 1e308, -1e308, 10**30, float("nan"), float("inf"), "", " ", "x" * 5000, "a\nb", "\0",
    "[/bold]", "{{ x }}", "%s", "é" * 300, "../..", "/dev/zero", "/dev/stdin", "/", ".", "models/maths", "a/b",
    "model-wide", "linear", [], {}, [[]], [None], {"": ""}, {"kind": "x"}, [0, 10**9], ["a", "a"], 10**9, 2**63,
)  # fmt: skip
"""Values to be found where others are expected."""

Damage = Callable[[Path, random.Random], str]
"""Changes a file and says in words what it did."""


def flip_bit(path: Path, rng: random.Random) -> str:
    """Flip one bit."""
    content = bytearray(path.read_bytes() or b"\0")
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    content[place] ^= 1 << bit
    return _write(path, bytes(content), f"bit {bit} of byte {place} flipped")


def cut(path: Path, rng: random.Random) -> str:
    """Keep the beginning only."""
    content = path.read_bytes()
    size = rng.choice([0, rng.randrange(len(content) + 1), max(0, len(content) - rng.randrange(1, 20))])
    return _write(path, content[:size], f"cut to {size} of {len(content)} bytes")


def splice(path: Path, rng: random.Random) -> str:
    """Take a range of bytes out, or put one in: random ones, zeros, or a copy of others of the file."""
    content = path.read_bytes()
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice([0, 1, 8, 512]))
    other = rng.randrange(len(content) + 1)
    fresh = rng.choice([b"", rng.randbytes(8), b"\0" * 512, content[other : other + 200]])
    return _write(path, content[:start] + fresh + content[end:], f"bytes {start} to {end} became {len(fresh)} others")


def change_lines(path: Path, rng: random.Random) -> str:
    """Leave a line out, double it, or exchange it with another."""
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.choice(["drop", "double", "exchange", "move"]):
        case "drop":
            del lines[one]
            said = f"line {one + 1} left out"
        case "double":
            lines.insert(other, lines[one])
            said = f"line {one + 1} again before line {other + 1}"
        case "exchange":
            lines[one], lines[other] = lines[other], lines[one]
            said = f"lines {one + 1} and {other + 1} exchanged"
        case "move":
            lines.insert(other, lines.pop(one))
            said = f"line {one + 1} moved to {other + 1}"
        case how:
            raise AssertionError(how)
    return _write(path, b"".join(lines), said)


def change_keys(path: Path, rng: random.Random) -> str:
    """Change a value of a YAML or JSON document, or the key it stands under; of a file of JSON lines in one line."""
    if path.suffix == ".jsonl":
        lines = path.read_text(errors="replace").splitlines()
        place = rng.randrange(len(lines))
        plain, said = _changed(json.loads(lines[place]), rng)
        lines[place] = json.dumps(plain)
        return _write(path, ("\n".join(lines) + "\n").encode(), f"line {place + 1}: {said}")
    is_json = path.suffix == ".json"
    text = path.read_text()
    plain, said = _changed(json.loads(text) if is_json else yaml.load(text, yaml.CSafeLoader), rng)
    fresh = json.dumps(plain) if is_json else yaml.dump(plain, Dumper=yaml.CSafeDumper, sort_keys=False)
    return _write(path, fresh.encode(), said)


def double_key(path: Path, rng: random.Random) -> str:
    """Write a line again at the end of its block, as somebody does who copies keys."""
    lines = path.read_text(errors="replace").splitlines(keepends=True) or [""]
    place = rng.randrange(len(lines))
    lines.insert(place, lines[place])
    return _write(path, "".join(lines).encode(), f"line {place + 1} doubled")


TEXT: tuple[Damage, ...] = (flip_bit, cut, splice, change_lines, change_keys, change_keys, change_keys, double_key)
BINARY: tuple[Damage, ...] = (flip_bit, cut, splice)


def damage(path: Path, rng: random.Random) -> str:
    """Do something to a file; says what."""
    if rng.random() < 0.03:
        path.unlink()
        return "taken away"
    kinds = TEXT if path.suffix in (".yaml", ".yml", ".json", ".jsonl") else BINARY
    return rng.choice(kinds)(path, rng)


def _changed(plain: Any, rng: random.Random) -> tuple[Any, str]:
    """A document with one place of it changed, and in words how."""
    fresh = copy.deepcopy(plain)
    places = list(_places(fresh))
    if not places:
        return rng.choice(STRANGE), "everything replaced"
    holder, key = rng.choice(places)
    match rng.choice(["value", "value", "drop", "rename", "nest"]):
        case "value":
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
            said = f"is {str(holder[key])[:40]!r}"
        case "rename" if isinstance(holder, dict):
            name = str(key) + rng.choice(["x", " ", "_", ".a"])
            holder[name] = holder.pop(key)
            said = f"is called {name!r}"
        case "nest":
            deep: Any = holder[key]
            for _ in range(rng.choice([1, 5, 200])):
                deep = rng.choice([[deep], {"a": deep}])
            holder[key] = deep
            said = "lies deeper"
        case "drop" | "rename":  # An entry of a list has no name.
            del holder[key]
            said = "left out"
        case how:
            raise AssertionError(how)
    return fresh, f"{key!r} {said}"


def _places(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document that holds something: what it lies in, and its key there."""
    entries = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in list(entries):
        yield plain, key
        yield from _places(value)


def _write(path: Path, content: bytes, said: str) -> str:
    # A new file: the old one may be linked to what other trials need.
    path.unlink()
    path.write_bytes(content)
    return said
