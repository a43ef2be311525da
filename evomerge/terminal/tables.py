"""Tables of what a run has found."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evomerge.results import (
    RIVALS,
    Results,
    Row,
    Which,
    difference,
    number,
    perplexity,
    pool_keys,
    text_meaning,
    with_error,
)
from evomerge.results.curves import curves
from evomerge.terminal.progress import WIDTH, Plain
from evomerge.terminal.units import duration
from evomerge.visible import visible

NUMBERS: tuple[Which, ...] = ("search", "shrunken", "confirmed")
MEANING = {
    "search": "its own estimate, ± standard error, which flatters the best of many",
    "shrunken": "the same without the luck",
    "confirmed": "on items that the search never saw, [95 % interval]",
}
PERPLEXITY = "perplexity"
DISPENSABLE = (PERPLEXITY, "minus best parent", "minus uniform", "minus best fixed", "search", "shrunken")
"""Columns of a front's table that go first where there is too little room."""
SHOWN = 5
"""Incidents that are listed."""
NAMES = 16
"""Characters of a line of a name, so that numbers have room."""
MEASURING = Plain(width=10_000)
"""Widths are measured where there is room for anything."""


def show(console: Console, results: Results) -> None:
    """Print where a run stands: its tables, its first failures, one line of status."""
    for table in results_tables(results, console.width):
        console.print(table)
        console.print()
    if (why := results.file.why) is not None:
        console.print(f"optimiser: {results.file.spec.optimizer.kind}; {why}")
    for remark in _remarks(results):
        console.print(f"note: {remark}")
    for failure in results.to_json()["failures"][:5]:
        line = f"failed: candidate {failure['number']} while {failure['stage']}: {failure['reason']}"
        console.print(line)
    for line in _pool_lines(results):
        console.print(line)
    went_by = results.fitness.estimator.kind
    if results.appraiser.kind != went_by:
        console.print(f"search and shrunken values are by {results.appraiser.kind}; the search went by {went_by}")
    console.print(status_line(results))


def results_tables(results: Results, width: int = WIDTH) -> list[Table]:
    """Baselines and front of a run, with as many columns as fit."""
    which = "confirmed on held-out items" if results.is_confirmed else "on the search items, optimistic"
    baselines = Table(title=f"parents and fixed recipes ({which})", title_justify="left", show_edge=False)
    baselines.add_column("model")
    for label in results.objectives:
        baselines.add_column(label, justify="right")
    drifted = [PERPLEXITY] if any(row.drift for row in results.baselines) else []
    for head in drifted:
        baselines.add_column(head, justify="right")
    for row in results.baselines:
        trusted = results.trusted(row)
        cells = (number(row, trusted, label) for label in results.objectives)
        baselines.add_row(row.name, *cells, *(perplexity(row) for _ in drifted))
    return [baselines, _front_table(results, width)]


def _front_table(results: Results, width: int) -> Table:
    """A line for every candidate and objective; columns that do not fit are left out, in the order of DISPENSABLE.

    Numbers stay whole; long names go over several lines.
    """
    cells = [_columns(results, row) for row in results.front]
    heads = list(dict.fromkeys(head for row in cells for head in row))
    for head in (None, *DISPENSABLE):
        heads = [other for other in heads if other != head]
        table = _table(results, cells, heads)
        if Measurement.get(MEASURING, MEASURING.options, table).maximum <= width:
            break
    return table


def _pool_lines(results: Results) -> list[str]:
    """How workers on Ray stand, what each did, and the last things that befell them."""
    found = pool_keys(results.state)
    stands, incidents = found["workers"], found["incidents"]
    lines = []
    if stands is not None:
        counts = ", ".join(f"{stands[name]} {name}" for name in ("ready", "starting", "busy", "queued"))
        lines.append(f"workers: {counts}; {stands['utilisation']:.0%} of their time used")
        for name, each in stands["each"].items():
            pace = duration(each["seconds"] / each["works"])
            lines.append(f"  {name}: {each['works']} works, {pace} each")
    if incidents:
        lines.append(f"incidents: {len(incidents)}, the last:")
    for one in incidents[-SHOWN:]:
        where = [
            f"work {one['work']}" if "work" in one else one["stage"],
            *([one["worker"]] if "worker" in one else []),
        ]
        lines.append(f"  {', '.join(where)}: {one['what']}")
    return lines


def _remarks(results: Results) -> list[str]:
    """What must be said of the items, and what the estimator found odd about finalists, with how many estimates."""
    estimates = [each for n in results.finalists for each in (results.appraiser.values(n) or {}).values()]
    found = Counter(note for estimate in estimates for note in estimate.notes)
    odd = [f"{count} of {len(estimates)} estimates of finalists: {note}" for note, count in found.items()]
    return [*map(visible, results.store.table.caveats()), *odd]


def _table(results: Results, cells: Sequence[Mapping[str, Mapping[str, str]]], heads: Sequence[str]) -> Table:
    """`cells` hold for each of the front's candidates a text by column and objective."""
    one = len(results.objectives) == 1
    table = Table(title="finalists, best first" if one else "Pareto front", title_justify="left", show_edge=False)
    table.caption, table.caption_justify = _legend(results, heads), "left"
    table.add_column("candidate", max_width=NAMES)
    if not one:
        table.add_column("objective", max_width=NAMES)
    for head in heads:
        table.add_column(Text(head.replace("minus ", "minus\n")), justify="right", no_wrap=True)
    for row, columns in zip(results.front, cells, strict=True):
        for place, label in enumerate(results.objectives):
            first = [_called(results, row) if place == 0 else "", *([] if one else [label])]
            table.add_row(*first, *(columns.get(head, {}).get(label, "") for head in heads))
        if not one:
            table.add_section()
    return table


def _columns(results: Results, row: Row) -> dict[str, dict[str, str]]:
    """What can be said of a candidate: texts by column and objective."""
    known = NUMBERS if results.is_confirmed else NUMBERS[:2]
    columns: dict[str, dict[str, str]] = {
        which: {label: number(row, which, label) for label in results.objectives} for which in known
    }
    paired = results.paired(row) if results.is_confirmed else {}
    differences = {
        f"minus {RIVALS[key]}": {label: difference(row, label, pair) for label, (_, pair) in rivals.items()}
        for key, rivals in paired.items()
    }
    drift = {PERPLEXITY: {results.objectives[0]: perplexity(row)}} if row.drift is not None else {}
    return {**columns, **differences, **drift}


def _legend(results: Results, heads: Sequence[str]) -> str:
    """What the columns and marks in the front's table stand for, those that are there."""
    rows = results.front
    parts = [f"{head}: {MEANING[head]}" for head in heads if head in MEANING]
    parts += [f"{PERPLEXITY}: {text_meaning(results)}"] if PERPLEXITY in heads else []
    if results.best is not None and results.is_confirmed:
        rivals = results.best_fixed(results.best).values()
        parts += [f"best fixed: {name}" for name in dict.fromkeys(name for name, _ in rivals)]
    parts += ["*: best"] if results.best in rows else []
    if len(results.objectives) > 1 and rows:
        parts.append(f"knee: {results.pick('knee').number}")
    parts += _learned(results)
    if any(row.origin == "recommended" and row.tradeoff is None for row in rows):
        parts.append("r: recommended, the optimiser's centre or the mean of its top 8")
    return "; ".join(parts)


def _learned(results: Results) -> list[str]:
    """What learned points of a front are, and how many of them are on it."""
    if found := curves(results):
        there, count = sum(row in results.front for row in found[-1]), len(found[-1])
        return [
            f"learned W: of the learned curve, for weight W of {results.objectives[0]}; {there} of its {count} points"
            " are on the front, and export --pick tradeoff:W writes any other"
        ]
    if len(results.objectives) > 1 and any(row.tradeoff is not None for row in results.front):
        return ["learned: with the weights of the objectives but the last that it was learned for"]
    return []


def _called(results: Results, row: Row) -> str:
    mark = " *" if results.best is not None and row.number == results.best.number else ""
    name = "" if row.name.startswith("candidate ") else f" {row.name}"
    origin = " r" if row.origin == "recommended" and row.tradeoff is None else ""
    return f"{row.number}{name}{origin}{mark}"


def status_line(results: Results) -> str:
    """State, counts and time of a run in a line."""
    found = results.to_json()
    counts, seconds = found["evaluations"], found["seconds"]
    budget = f" of {counts['budget']}" if counts["budget"] else ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    best = f", best {results.best.number} (*)" if results.best else ""
    spent = f"merging {duration(seconds['merge'])}, scoring {duration(seconds['score'])}"
    ended = f"; the search ended early, {found['ended']}" if found["ended"] else ""
    return (
        f"{results.store.folder}: {found['state']}, {counts['done']}{budget} evaluations{failed}{best};"
        f" {spent}, the rest {duration(seconds['overhead'])}{ended}"
    )


def csv_lines(results: Results) -> list[str]:
    """Every model of the run, one line each."""
    rows = list(results.rows.values())
    head = ["number", "name", "origin", "recipe"]
    for label in results.objectives:
        head += [f"{label} {which}{part}" for which in NUMBERS for part in ("", " error")]
        head += [f"{label} confirmed {end}" for end in ("low", "high")]
        head += [f"{label} minus {rival}{part}" for rival in RIVALS.values() for part in ("", " error")]
    return [_csv([*head, "search items"]), *(_csv([*_csv_cells(results, row), row.items]) for row in rows)]


def _csv_cells(results: Results, row: Row) -> list[object]:
    cells: list[object] = [row.number, row.name, row.origin, row.recipe]
    paired = results.paired(row)
    for label in results.objectives:
        found = [row.values(which).get(label) for which in NUMBERS]
        found += [row.interval[label] if row.interval is not None else None]
        found += [rivals[label][1] if label in rivals else None for rivals in paired.values()]
        written = int if label in row.exact else float
        cells += [cell for pair in found for cell in (map(written, pair) if pair else ("", ""))]
    return cells


def _csv(cells: Sequence[object]) -> str:
    texts = [visible(cell) for cell in cells]
    return ",".join('"' + text.replace('"', '""') + '"' if set(text) & {",", '"'} else text for text in texts)


def scores_table(values: Mapping[str, Sequence[float]], items: Mapping[str, int], exact: Collection[str] = ()) -> Table:
    """What `evomerge score` found; `exact` names the objectives that are costs."""
    table = Table(show_edge=False, caption=", ".join(f"{count} items of {task}" for task, count in items.items()))
    table.add_column("objective", max_width=NAMES)
    table.add_column("value", justify="right")
    for label, found in values.items():
        table.add_row(label, with_error((found[0], found[1]), exact=label in exact))
    return table
