"""Every byte of a model is read once, and again when it has changed."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import DEMO_MODELS

from evomerge.checkpoint import open_parents
from evomerge.checkpoint.inspect import finite
from evomerge.errors import SpecError


def test_a_model_is_read_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODELS / "maths", model)

    def opened() -> tuple[str | None, list[str]]:
        said: list[str] = []
        return open_parents(None, {"one": str(model)}, 0, said.append).parents.models["one"].digest, said

    first, said = opened()
    assert said == [f"reading {model / 'model.safetensors'}"]
    assert opened() == (first, [])
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1  # One bit of one weight, and the size is what it was.
    stat = weights.stat()
    weights.write_bytes(bytes(content))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second, said = opened()
    assert second != first
    assert said


def test_what_was_found_wrong_is_remembered(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(DEMO_MODELS / "maths", model)
    weights = load_file(model / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = torch.inf
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    for _ in range(2):
        with pytest.raises(SpecError, match=f"{name} holds NaN or infinity"):
            open_parents(None, {"one": str(model)}, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype: torch.dtype) -> None:
    assert finite(torch.empty(0, dtype=dtype))
    for size in (1, 33, 1_003):
        tensor = torch.full((size,), -torch.finfo(torch.float16).max, dtype=dtype)
        assert finite(tensor)
        for place in {0, size // 2, size - 1}:
            for wrong in (torch.nan, torch.inf, -torch.inf):
                other = tensor.clone()
                other[place] = wrong
                assert not finite(other)
