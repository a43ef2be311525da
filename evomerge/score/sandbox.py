"""Templates of task files, rendered where they reach nothing but the document, as chat templates are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import lm_eval.utils
from jinja2 import BaseLoader, Environment, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

KEPT = 1024
"""Templates that stay compiled; lm-eval compiles them anew for every document."""


class SandboxedTemplates(ImmutableSandboxedEnvironment):
    """Renders what lm-eval's own environment does, and alike; filters that tasks add to that one are here too."""

    def __init__(self, like: Environment) -> None:
        super().__init__(
            loader=BaseLoader(), undefined=like.undefined, keep_trailing_newline=like.keep_trailing_newline
        )
        self.filters = like.filters
        self.tests = like.tests

    def from_string(self, source: Any, *rest: Any) -> Template:
        """The template, compiled once."""
        return super().from_string(source, *rest) if rest or not isinstance(source, str) else self._compiled(source)

    @cached_property
    def _compiled(self) -> Any:
        return lru_cache(KEPT)(super().from_string)


TEMPLATES = SandboxedTemplates(lm_eval.utils.env)


@contextmanager
def sandboxed() -> Iterator[None]:
    """Have lm-eval render templates in the sandbox for a while; it looks its environment up by name.

    Whatever loads a task, builds its requests or grades answers belongs in here: each renders templates.
    """
    theirs = lm_eval.utils.env
    lm_eval.utils.env = TEMPLATES
    try:
        yield
    finally:
        lm_eval.utils.env = theirs
