"""Silence ends where it began: what the libraries print is the user's choice again."""

import itertools
import logging
from collections.abc import Callable, Iterator

import pytest
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import are_progress_bars_disabled as hub_is_still
from huggingface_hub.utils import disable_progress_bars as still_the_hub
from huggingface_hub.utils import enable_progress_bars as let_the_hub_draw
from transformers.utils import logging as transformers_logging

from evomerge.checkpoint import quiet
from evomerge.score.tasks import silent


def settings() -> tuple[bool, bool, bool, int, int]:
    return (
        transformers_logging.is_progress_bar_enabled(),
        not hub_is_still(),
        not are_progress_bars_disabled(),
        transformers_logging.get_verbosity(),
        logging.getLogger("lm_eval").level,
    )


def choose(transformers: bool, hub: bool, datasets: bool) -> None:
    (transformers_logging.enable_progress_bar if transformers else transformers_logging.disable_progress_bar)()
    (let_the_hub_draw if hub else still_the_hub)()
    (enable_progress_bars if datasets else disable_progress_bars)()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = settings()
    yield
    choose(*before[:3])


@pytest.mark.parametrize("choice", itertools.product([True, False], repeat=3))
@pytest.mark.parametrize("context", [quiet, silent])
def test_bars_and_levels_are_what_they_were(context: Callable, choice: tuple[bool, bool, bool]) -> None:
    choose(*choice)
    before = settings()
    assert before[:3] == choice
    with pytest.raises(KeyError), context():
        assert not transformers_logging.is_progress_bar_enabled()
        assert hub_is_still()
        assert context is quiet or are_progress_bars_disabled()
        raise KeyError
    assert settings() == before
