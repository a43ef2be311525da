"""What goes between driver and workers: JSON, compressed, so that even long answers stay out of the object store."""

import zlib
from typing import TypeVar

from evomerge.items import ItemTable
from evomerge.recipe import Parents
from evomerge.values import Value

AnyValue = TypeVar("AnyValue", bound=Value)


class Ready(Value):
    """A worker that can be given work: how the journal calls it, which device is its own, its models and its items."""

    name: str
    place: str
    device: str
    parents: Parents
    table: ItemTable
    notes: tuple[str, ...] = ()


def packed(value: Value) -> bytes:
    """A value on its way."""
    return zlib.compress(value.model_dump_json().encode(), 1)


def unpacked(kind: type[AnyValue], message: bytes) -> AnyValue:
    """The value that arrived."""
    return kind.model_validate_json(zlib.decompress(message))
