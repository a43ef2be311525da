"""What a person at a terminal sees: progress while it works, tables when it is done."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from evomerge.estimate import Pair
from evomerge.plan import Plan
from evomerge.results import Results, Row, non_dominated
from evomerge.session import Session
from evomerge.trial import Evaluation

QUIET_EVERY = 10.0
"""Seconds between progress lines where there is no terminal."""
WIDTH = 120
"""Columns of a table where there is no terminal to be asked."""
WIDE = 100
"""Columns that all of a front's table needs."""
PHASES = {"baseline": "fixed recipes", "search": "search", "refresh": "search", "confirm": "confirm"}
"""What the purpose of a work item is called."""


def console(*, err: bool = False) -> Console:
    """The console that everything is printed to."""
    found = Console(stderr=err, soft_wrap=True, highlight=False, markup=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


class Ticker:
    """Progress of a search: best, front size, rate and time left; quiet lines when not at a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._said = time.monotonic()
        self._started = time.monotonic()
        self._done_before = 0
        self._phase = ""
        self._points: dict[int, tuple[float, ...]] = {}
        self._failed = 0

    def say(self, text: str) -> None:
        """A remark."""
        self._console.print(text, style="dim" if self._console.is_terminal else None)

    def watch(self, session: Session, evaluation: Evaluation) -> None:
        """Take a result in and show where things stand."""
        phase = PHASES[session.state.works[evaluation.work].purpose]
        done, total = self._counts(session, phase)
        if phase != self._phase:
            self._begin(session, phase, done - 1, evaluation.seconds.merge + evaluation.seconds.score)
        elif phase == "search":
            self._take(session, evaluation.number)
        text = "  ".join((*self._found(session), *self._pace(done, total)))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total or None, standing=text)
        elif time.monotonic() - self._said >= QUIET_EVERY or done == total:
            self._said = time.monotonic()
            self._console.print(f"{phase} {done}{f'/{total}' if total else ''}  {text}")

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, session: Session, phase: str, done: int, seconds: float) -> None:
        """A new phase, in which `done` were there before and the first one took `seconds`."""
        self.close()
        self._phase, self._done_before, self._started = phase, done, time.monotonic() - seconds
        self._points, self._failed = {}, 0
        for evaluated in session.state.finished() if phase == "search" else ():
            self._take(session, evaluated.number)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[standing]}"), console=self._console)
            self._bar.add_task(phase, standing="", total=None)
            self._bar.start()

    def _counts(self, session: Session, phase: str) -> tuple[int, int]:
        """How many are done, and of how many, 0 if that is not known."""
        state = session.state
        if phase == "search":
            return len(state.finished()), state.budget.evaluations or 0
        works = [work for work in state.works.values() if PHASES[work.purpose] == phase]
        return sum(work.work in state.outcomes for work in works), len(works) if phase == "confirm" else 0

    def _take(self, session: Session, number: int) -> None:
        grader, values = session.appraiser.grader, session.appraiser.values(number)
        if values is None:
            self._failed += 1
        else:
            signed = zip(map(grader.sign, values), values.values(), strict=True)
            self._points[number] = tuple(sign * estimate.value for sign, estimate in signed)

    def _found(self, session: Session) -> list[str]:
        """The best of each objective, the size of the front, failures."""
        parts, points = [], list(self._points.values())
        if points:
            grader = session.appraiser.grader
            best = zip(grader.fitness.objectives, map(max, zip(*points, strict=True)), strict=True)
            parts.append("best " + ", ".join(f"{label} {grader.sign(label) * value:.3f}" for label, value in best))
            if len(points[0]) > 1:
                parts.append(f"front {len(non_dominated(points))}")
        return parts + ([f"{self._failed} failed"] if self._failed else [])

    def _pace(self, done: int, total: int) -> list[str]:
        """The rate, and the time left where no bar shows it."""
        passed = time.monotonic() - self._started
        rate = (done - self._done_before) / passed if passed > 0 else 0.0
        parts = [f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"]
        if total > done and rate > 0 and not self._console.is_terminal:
            parts.append(f"{duration((total - done) / rate)} left")
        return parts


def duration(seconds: float) -> str:
    """Seconds in words short enough for a table."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def pair(value: Pair | None, sign: str = "") -> str:
    """A value with its standard error."""
    return "" if value is None else f"{value[0]:{sign}.3f} ±{value[1]:.3f}"


def show(console: Console, results: Results) -> None:
    """Print where a run stands: its tables, its first failures, one line of status."""
    for table in results_tables(results, console.width):
        console.print(table)
        console.print()
    for failure in results.to_json()["failures"][:5]:
        line = f"failed: candidate {failure['number']} while {failure['stage']}: {failure['reason']}"
        console.print(line)
    console.print(status_line(results))


def results_tables(results: Results, width: int = WIDTH) -> list[Table]:
    """Baselines and front of a run, with fewer columns where there is less than WIDE."""
    which = "confirmed on held-out items" if results.is_confirmed else "on the search items, optimistic"
    baselines = Table(title=f"parents and fixed recipes ({which})", title_justify="left", show_edge=False)
    baselines.add_column("model")
    for label in results.objectives:
        baselines.add_column(label, justify="right")
    for row in results.baselines:
        known = results.known(row)
        baselines.add_row(row.name, *(pair(known.get(label)) for label in results.objectives))
    return [baselines, _front_table(results, wide=width >= WIDE)]


def _front_table(results: Results, *, wide: bool) -> Table:
    """A line for every candidate and objective."""
    one = len(results.objectives) == 1
    table = Table(title="finalists, best first" if one else "Pareto front", title_justify="left", show_edge=False)
    table.caption, table.caption_justify = _legend(results), "left"
    table.add_column("candidate")
    if not one:
        table.add_column("objective")
    for name, _ in _columns(results, results.front[0], wide=wide) if results.front else ():
        table.add_column(name, justify="right")
    for row in results.front:
        columns = _columns(results, row, wide=wide)
        for place, label in enumerate(results.objectives):
            head = [_called(results, row) if place == 0 else "", *([] if one else [label])]
            table.add_row(*head, *(values.get(label, "") for _, values in columns))
        if not one:
            table.add_section()
    return table


def _columns(results: Results, row: Row, *, wide: bool) -> list[tuple[str, dict[str, str]]]:
    """What a front's table says of a candidate: heads, and cells by objective."""
    search = ("search", {label: pair(value) for label, value in (row.search or {}).items()})
    if not results.is_confirmed:
        return [search]
    confirmed = ("confirmed", {label: pair(value) for label, value in (row.confirmed or {}).items()})
    parent, fixed = (
        (f"minus best {name}", {label: pair(difference, "+") for label, (_, difference) in rivals.items()})
        for name, rivals in (("parent", results.best_parent(row)), ("fixed", results.best_fixed(row)))
    )
    return [search, confirmed, parent, fixed] if wide else [confirmed, fixed]


def _legend(results: Results) -> str:
    """What the marks in the front's table stand for, those that are there."""
    rows, parts = results.front, []
    if results.best is not None and results.is_confirmed:
        rivals = results.best_fixed(results.best).values()
        parts += [f"best fixed: {name}" for name in dict.fromkeys(name for name, _ in rivals)]
    parts += ["*: best"] if results.best in rows else []
    if len(results.objectives) > 1 and rows:
        parts.append(f"knee: {results.pick('knee').number}")
    if any(row.origin == "recommended" for row in rows):
        parts.append("recommended: the optimiser's centre, or the mean of its top 8")
    return "; ".join(parts)


def _called(results: Results, row: Row) -> str:
    mark = " *" if results.best is not None and row.number == results.best.number else ""
    name = "" if row.name.startswith("candidate ") else f" {row.name}"
    origin = f" {row.origin}" if row.origin == "recommended" else ""
    return f"{row.number}{name}{origin}{mark}"


def status_line(results: Results) -> str:
    """State, counts and time of a run in a line."""
    found = results.to_json()
    counts, seconds = found["evaluations"], found["seconds"]
    budget = f" of {counts['budget']}" if counts["budget"] else ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    best = f", best {results.best.number} (*)" if results.best else ""
    spent = f"merging {duration(seconds['merge'])}, scoring {duration(seconds['score'])}"
    return (
        f"{results.store.folder}: {found['state']}, {counts['done']}{budget} evaluations{failed}{best};"
        f" {spent}, the rest {duration(seconds['overhead'])}"
    )


def csv_lines(results: Results) -> list[str]:
    """Every model of the run, one line each."""
    head = ["number", "name", "origin", "recipe"]
    for label in results.objectives:
        head += [f"{label} {which}{part}" for which in ("search", "confirmed") for part in ("", " error")]
    lines = [_csv(head)]
    for row in results.rows.values():
        cells: list[object] = [row.number, row.name, row.origin, row.recipe]
        for label in results.objectives:
            for values in (row.search, row.confirmed):
                cells += list(values[label]) if values is not None else ["", ""]
        lines.append(_csv(cells))
    return lines


def _csv(cells: Sequence[object]) -> str:
    texts = [str(cell) for cell in cells]
    return ",".join('"' + text.replace('"', '""') + '"' if set(text) & {",", '"', "\n"} else text for text in texts)


def plan_text(plan: Plan) -> list[str]:
    """A plan as lines to read."""
    lines = [
        f"parents    {parent.name}: {parent.path} ({parent.parameters:,} weights, {parent.dtype})"
        for parent in plan.parents
    ]
    lines += [f"space      {len(plan.genes)} genes over {plan.layers} layers, {plan.optimizer}"]
    lines += [f"           {text}" for text in _gene_lines(plan)]
    lines += [
        f"start      {plan.seeds} points of the prior design; outside the space: {', '.join(plan.outside) or 'none'}"
    ]
    for task in plan.tasks:
        lines.append(f"task       {task.name}: {task.counted}; {', '.join(task.metrics)}")
    compiled = ", merging compiled" if plan.compiled else ""
    lines += [
        f"device     {plan.device}{compiled}; parents {plan.placement}",
        f"cost       {duration(plan.merge_seconds)} to merge a candidate, {duration(plan.score_seconds)} to score it,"
        f" {sum(task.tokens for task in plan.tasks):,} tokens",
        f"duration   {duration(plan.search_seconds)} to search, at most {duration(plan.confirm_seconds)} to confirm",
        f"memory     {size(plan.memory)} at most so far",
        f"disk       {size(plan.run_bytes)} for the run, {size(plan.export_bytes)} for an export;"
        f" {size(plan.free_bytes)} free",
    ]
    return lines + [f"note       {note}" for note in plan.notes]


def _gene_lines(plan: Plan) -> list[str]:
    """Gene names with their ranges, runs of equal ranges in one line."""
    ranges: dict[tuple[float, float], list[str]] = {}
    for gene in plan.genes:
        ranges.setdefault((gene.low, gene.high), []).append(gene.name)
    return [f"[{low:g}, {high:g}]: {', '.join(names)}" for (low, high), names in ranges.items()]


def scores_table(values: Mapping[str, Sequence[float]], items: Mapping[str, int]) -> Table:
    """What `evomerge score` found."""
    table = Table(show_edge=False, caption=", ".join(f"{count} items of {task}" for task, count in items.items()))
    table.add_column("objective")
    table.add_column("value", justify="right")
    for label, found in values.items():
        table.add_row(label, pair((found[0], found[1])))
    return table
