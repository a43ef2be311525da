"""Named arrays as bytes of a safetensors file, named by their content."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import SpecError

SUFFIX = ".safetensors"
HEAD = 8
"""Bytes in which a file says how long its header is, a multiple of as many."""


def packed(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> bytes:
    """A safetensors file's bytes: the same for the same arrays and facts, in whatever order they come."""
    import json

    from safetensors.numpy import save

    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    content = save(ordered)
    end = HEAD + int.from_bytes(content[:HEAD], "little")
    # The library writes facts in an order of its own, which differs from call to call.
    plain = {"__metadata__": dict(sorted(facts.items())), **json.loads(content[HEAD:end])}
    header = json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % HEAD)
    return len(header).to_bytes(HEAD, "little") + header + content[end:]


def unpacked(content: bytes, where: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays and the facts in a file's bytes.

    Raises:
        SpecError: they are no safetensors file; `where` says whose they are.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        (size,) = struct.unpack("<Q", content[:8])
        facts = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    except KeyError as error:  # NumPy has no bfloat16, for one.
        raise SpecError(f"{where} holds numbers of a kind that none of ours has ({error}); give float32") from None
    except (SafetensorError, ValueError, struct.error) as error:
        raise SpecError(f"{where} is no safetensors file ({error}); restore it from a copy") from None
    return arrays, facts


def digest_of_bytes(content: bytes) -> str:
    """The digest by which a file is known."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def spelt(content: bytes) -> str:
    """Bytes as JSON can hold them."""
    return base64.b64encode(content).decode()


def unspelt(text: str) -> bytes:
    """The bytes that a text stands for.

    Raises:
        ValueError: it stands for none.
    """
    return base64.b64decode(text, validate=True)
