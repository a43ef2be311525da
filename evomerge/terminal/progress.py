"""Progress while a command works."""

import time
from datetime import UTC, datetime

from rich.console import Console, HighlighterType, JustifyMethod, OverflowMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.style import Style
from rich.text import Text

from evomerge.events import Incident
from evomerge.session import Session
from evomerge.terminal.standing import Gauge, Standing, field_text, phase_of
from evomerge.trial import Evaluation
from evomerge.visible import visible

QUIET_EVERY = 10.0
"""Seconds between progress lines where there is no terminal."""
OFTEN = 0.1
"""The same for the bar at a terminal."""
WIDTH = 140
"""Columns of a table where there is no terminal to be asked."""


class Plain(Console):
    """A console on which every string is one line, and none is markup; layout that is ours comes as `Text`."""

    def render_str(  # noqa: PLR0913  The signature is rich's.
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,  # noqa: ARG002
        markup: bool | None = None,  # noqa: ARG002
        highlight: bool | None = None,  # noqa: ARG002
        highlighter: HighlighterType | None = None,  # noqa: ARG002
    ) -> Text:
        """What rich makes of a string, in a line or in a table."""
        return Text(visible(text), style=style, justify=justify, overflow=overflow)

    def on_broken_pipe(self) -> None:
        """Who watched has left: what is watched goes on; who read has: nothing more is written."""
        self.quiet = True
        if not self.stderr:
            raise BrokenPipeError


def console(*, err: bool = False) -> Console:
    """The console that everything is printed to."""
    found = Plain(stderr=err, soft_wrap=True, highlight=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


class Ticker:
    """Progress of a search: a bar at a terminal; elsewhere a line of a log every ten seconds, with time and fields."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._shown, self._done = time.monotonic(), 0
        self._gauge: Gauge | None = None
        self._stage = ""
        self._incidents = 0

    def enter(self, stage: str) -> None:
        """Another stage begins."""
        self.close()
        self._stage, self._gauge, self._incidents = stage, None, 0

    def say(self, text: str) -> None:
        """A remark."""
        if self._console.is_terminal:
            self._console.print(text, style="dim")
        else:
            self._console.print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}")

    def watch(self, session: Session, evaluation: Evaluation) -> None:
        """Take a result in and show where things stand."""
        phase = phase_of(session.state.works[evaluation.work].purpose)
        if self._gauge is None or phase != self._gauge.phase:
            self.close()
            self._gauge, self._done = Gauge(session, phase, evaluation), 0
            self._begin(phase)
        self._gauge.take(evaluation)
        self._tell(session.state.incidents[self._incidents :])
        self._incidents = len(session.state.incidents)
        done, total = self._gauge.counts
        is_over = done == total != self._done
        if is_over or time.monotonic() - self._shown >= (QUIET_EVERY if self._bar is None else OFTEN):
            self._shown, self._done = time.monotonic(), done
            self._show(phase, self._gauge.standing())

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, phase: str) -> None:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[standing]}", markup=False), console=self._console)
            named = f"{self._stage}: {phase}" if self._stage else phase
            self._bar.add_task(visible(named), standing="", total=None)
            self._bar.start()

    def _show(self, phase: str, standing: Standing) -> None:
        if self._bar is not None:
            total = standing.total or None
            self._bar.update(
                self._bar.task_ids[0], completed=standing.done, total=total, standing=visible(standing.words())
            )
        else:
            stage = f"stage={field_text(self._stage)} " if self._stage else ""
            self.say(f"{phase}: {stage}{standing.fields()}")

    def _tell(self, fresh: list[Incident]) -> None:
        """Say what befell workers since the last result: the last of it, and how much there was."""
        if fresh:
            more = f" (and {len(fresh) - 1} more)" if len(fresh) > 1 else ""
            self.say(f"{fresh[-1].worker or fresh[-1].stage}: {fresh[-1].what}{more}; see evomerge show")
