"""Files of arrays: the same bytes for the same arrays, and whatever is none is refused in a line."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from evomerge.arrays import packed, unpacked
from evomerge.errors import SpecError
from evomerge.recipe import Coefficients

GOOD = packed({"a": np.zeros((2, 3), np.float32)}, {"grain": "column"})


def test_what_is_packed_is_unpacked_whatever_its_order() -> None:
    one, other = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4.0)
    content = packed({"b": one, "a": other}, {"y": "1", "x": "2"})
    assert content == packed({"a": other, "b": one}, {"x": "2", "y": "1"})
    arrays, facts = unpacked(content, "here")
    assert facts == {"x": "2", "y": "1"}
    np.testing.assert_array_equal(arrays["b"], one)
    np.testing.assert_array_equal(arrays["a"], other)


def header(plain: object, data: bytes = b"") -> bytes:
    text = json.dumps(plain).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0",
        struct.pack("<Q", 1 << 60) + b"{}",
        header([]),
        header({"__metadata__": ["grain"]}),
        header({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 8]}}, bytes(24)),
        save({"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, metadata={"grain": "column"}),
        packed({"a": np.zeros((2, 3))}, {"grain": "column"}),
        packed({"a": np.zeros(3, np.float32)}, {"grain": "column"}),
        packed({"a": np.full((2, 3), np.nan, np.float32)}, {"grain": "column"}),
        packed({"a": np.zeros((2, 3), np.float32)}, {}),
        packed({"a": np.zeros((2, 3), np.float32)}, {"grain": "layer"}),
    ],
)
def test_what_holds_no_coefficients_is_refused(content: bytes) -> None:
    with pytest.raises(SpecError, match="^here "):
        Coefficients.of_bytes(content, "here")


@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_whatever_happens_to_bytes_they_are_read_or_refused(place: int, byte: int, cut: int) -> None:
    for content in (GOOD[:place] + bytes([byte]) + GOOD[place + 1 :], GOOD[:cut]):
        try:
            found = Coefficients.of_bytes(content, "here")
        except SpecError as error:
            assert "\n" not in str(error)
        else:
            assert all(array.ndim == 2 for array in found.arrays.values())
