"""Every way to ask that lm-eval documents, item by item beside `simple_evaluate`: equal, or refused.

`scripts/differential` puts all of them to all families.
"""

from pathlib import Path

import pytest
from differential import compare, named, prepare

SHORT = (
    "until_string",
    "until_empty_string",
    "until_special",
    "until_pad",
    "other_end_token_until",
    "end_tokens",
    "window_full",
    "window_almost_full",
    "default_length_too_much",
    "nothing_asked",
    "max_length",
    "long_prompt",
    "empty_prompt",
    "no_end_token",
    "sampled_cold",
    "beams",
    "config_bias",
    "filters",
    "repeats",
    "nanmean",
    "own_metric",
    "fewshot",
    "delimiters",
    "description",
    "chat_turns",
    "chat_gen_prefix",
    "chat_raises",
    "choices_bos",
    "several_golds",
    "mutual",
    "winograd",
    "choices_long",
    "choices_no_tokens",
    "choice_too_long",
    "likelihood_space",
    "likelihood_blank_bos",
    "likelihood_both_empty",
    "likelihood_empty_target",
    "likelihood_only_prefix",
    "tokens_beyond",
    "words_only",
    "rolling_bos",
    "rolling_blank",
    "narrow",
    "narrow_generation",
)
"""Those that take the least for what they show."""
BRIEF = ("other_end_token", "choices_long")
"""Those that families are put to which `test_lm_eval` does not know."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("differential"), documents=5)


@pytest.mark.parametrize("name", SHORT)
def test_marks_are_those_of_simple_evaluate_or_refused(name: str, folder: Path) -> None:
    found = compare("llama", named(name), folder)
    assert found.outcome in ("equal", "refused by both"), found
    assert "\n" not in found.ours


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "cohere2", "bloom", "gptj"])
def test_no_family_differs(family: str, folder: Path) -> None:
    for name in BRIEF:
        found = compare(family, named(name), folder)
        assert found.outcome == "equal", (name, found)
