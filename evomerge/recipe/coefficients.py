"""Merge coefficients finer than a layer: a number a tensor, a column of its input, or a row of its output."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, assert_never, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer

from evomerge.arrays import digest_of_bytes, packed, spelt, unpacked, unspelt
from evomerge.errors import SpecError
from evomerge.values import Value
from evomerge.visible import visible

Grain: TypeAlias = Literal["tensor", "column", "row"]
"""How finely a tensor's coefficients differ: one a source, one an input column (last axis), one an output row."""
FineGrain: TypeAlias = Literal["column", "row"]
FILE = "coefficients.safetensors"
"""What the side file is called beside a recipe."""
LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def count_of(grain: Grain, shape: tuple[int, ...]) -> int:
    """How many coefficients each source of a tensor of this shape has."""
    match grain:
        case "tensor":
            return 1
        case "column":
            return shape[-1] if len(shape) > 1 else 1
        case "row":
            return math.prod(shape[:-1])
        case _:
            assert_never(grain)


def part_of(name: str) -> tuple[int | None, str]:
    """The layer that a tensor is in, the first number in its name, and what it is called there; outside all of it."""
    found = LAYER.search(name)
    return (None, name) if found is None else (int(found[1]), name[found.end() :])


class Arrays(Value):
    """The side file of a recipe: coefficients by tensor name, each (sources, columns or rows).

    `digest` is over its bytes, and says which they are; `path` only says where, beside whatever names it.
    """

    path: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    grain: FineGrain

    def at(self, folder: Path) -> "Arrays":
        """The same, from a file in `folder` that named it."""
        return self.model_copy(update={"path": str(folder / self.path)})


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of a grain by tensor name of the merged model: float32 (sources, n), in a blend's order of sources.

    n is 1 for grain `tensor`, and for tensors of one axis; else columns or rows.
    """

    grain: Grain
    arrays: Mapping[str, NDArray[np.float32]]

    @cached_property
    def content(self) -> bytes:
        """A side file's bytes."""
        return packed(self.arrays, {"grain": self.grain})

    def digest(self) -> str:
        """What a recipe says of its side file."""
        return digest_of_bytes(self.content)

    @classmethod
    def of_bytes(cls, content: bytes, where: str) -> Self:
        """What a side file holds.

        Raises:
            SpecError: it is no such file.
        """
        arrays, facts = unpacked(content, where)
        grain = next((each for each in get_args(Grain) if each == facts.get("grain")), None)
        odd = [name for name, array in arrays.items() if array.dtype != np.float32 or array.ndim != 2]
        if grain is None or odd or not all(np.isfinite(array).all() for array in arrays.values()):
            raise SpecError(f"{where} holds no merge coefficients; restore it from a copy")
        return cls(grain, arrays)

    @classmethod
    def read(cls, named: Arrays) -> Self:
        """What the side file of a recipe holds.

        Raises:
            SpecError: it is missing, or not the one that the recipe names.
        """
        path = Path(named.path)
        try:
            if path.exists() and not path.is_file():  # A pipe would be waited for.
                raise SpecError(f"{path} is no file; put the recipe's own back")
            content = path.read_bytes()
        except (OSError, ValueError) as error:  # No path has a zero byte.
            reason = error.strerror if isinstance(error, OSError) else error
            raise SpecError(
                f"{visible(str(path))[:200]} cannot be read ({reason}); put it back beside the recipe"
            ) from None
        if digest_of_bytes(content) != named.digest:
            raise SpecError(f"{path} is not what the recipe was written with (digests differ); restore it from a copy")
        return cls.of_bytes(content, str(path))


def _carried(value: object) -> object:
    return Coefficients.of_bytes(unspelt(value), "a message") if isinstance(value, str) else value


Carried: TypeAlias = Annotated[
    Coefficients,
    BeforeValidator(_carried),
    PlainSerializer(lambda value: spelt(value.content), return_type=str, when_used="json"),
]
"""Coefficients in a value that goes from process to process as JSON."""
