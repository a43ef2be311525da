"""Classes that no family of the other tests stands for: merged to the mean, or refused in one line."""

from pathlib import Path

import pytest
from classes import tried

MERGED = ("apertus", "axk1", "bamba", "bert", "biogpt", "bitnet", "ctrl", "gemma4_text", "gpt_oss", "mamba", "rwkv")
REFUSED = {"deepseek_v4": "tid2eid of int64, which cannot be merged"}


@pytest.mark.parametrize("kind", MERGED)
def test_the_mean_of_two_is_the_mean_of_what_stock_transformers_loads(kind: str, tmp_path: Path) -> None:
    assert tried(kind, tmp_path).kind == "right"


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    outcome = tried(kind, tmp_path)
    assert outcome.kind == "refused"
    assert REFUSED[kind] in outcome.words
