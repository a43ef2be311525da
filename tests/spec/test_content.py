"""What a program hands over in place of a run file is read as the file would be, and refused as it would be."""

from typing import Any

import pytest
from conftest import DEMO_MODELS, small_fitness

import evomerge
from evomerge.errors import SpecError
from evomerge.spec import spec_of

PLAIN: dict[str, Any] = {
    "models": {"base": DEMO_MODELS / "base", "experts": {"maths": str(DEMO_MODELS / "maths")}},
    "space": "model-wide",
    "fitness": small_fitness(),
    "budget": {"evaluations": 6},
}


def itself() -> dict[str, Any]:
    plain: dict[str, Any] = {}
    plain["space"] = plain
    return plain


def deep() -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for _ in range(5000):
        plain = {"models": plain}
    return plain


def test_content_is_read_as_its_file_would_be() -> None:
    assert spec_of(PLAIN).models.base == str(DEMO_MODELS / "base")
    assert spec_of(PLAIN).fitness.items.search == 16


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({**PLAIN, "budgt": 1}, "the run: budgt is not a key here; did you mean budget?"),
        ({**PLAIN, "space": {"kind": "repeat", "times": 10**9}}, "the run: space.times is 1000000000"),
        ({**PLAIN, "seed": float("nan")}, "the run: seed is NaN"),
        ({**PLAIN, "start": [{1}]}, "the run: {1} is a set"),
        (itself(), "the run: Circular reference detected"),
        (deep(), "the run nests lists and mappings too deeply"),
        ({**PLAIN, "models": {"experts": {"a": "x" * 300}}}, "x does not exist; give a model folder"),
        ({**PLAIN, "models": {"experts": {"a": "x@" * 300}}}, "; give one of both"),
        ({**PLAIN, "models": {"experts": {"a": "~nobobody/x"}}}, "~nobobody/x does not exist; give a model folder"),
        ({**PLAIN, "start": ["x" * 300]}, "is neither a recipe file nor a run folder"),
        ({**PLAIN, "space": "x" * 300}, "is neither a file nor a preset"),
    ],
)
def test_content_is_refused_as_its_file_would_be(plain: dict[str, Any], words: str, tmp_path: Any) -> None:
    with pytest.raises(SpecError) as refused:
        evomerge.search(plain, tmp_path / "run")
    assert words in str(refused.value)
    assert not (tmp_path / "run").exists()
