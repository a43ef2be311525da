"""The frozen, strict base of every value that crosses a file or a process."""

import hashlib
import json
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

Genome: TypeAlias = tuple[float, ...]
"""A point of the unit cube, one number per gene."""


class Value(BaseModel):
    """A fact: frozen, compared by content, refusing unknown keys and numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        serialize_by_alias=True,
        ser_json_inf_nan="constants",
    )

    def to_plain(self) -> dict[str, Any]:
        """This value as JSON types, without what is at its default."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return plain


class Tagged(Value):
    """A member of a union told apart by `kind`, which is therefore always written."""

    kind: Any

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **handler(self)}


def by_name(value: Any) -> Any:
    """A bare name stands for a tagged value with everything at its defaults: `cma` for `{kind: cma}`."""
    return {"kind": value} if isinstance(value, str) else value


def digest_of(plain: Any) -> str:
    """The content address of JSON types: `sha256:` and 64 hex digits, whatever the order of keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
