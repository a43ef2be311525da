"""One self-contained HTML page about a run: opens anywhere, needs no network, runs nothing of the run's."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from evomerge.files import Target, write_file
from evomerge.recipe import Recipe, own_weights
from evomerge.report import figures, grains
from evomerge.report.curves import with_curves
from evomerge.results import RIVALS, Results, Row, difference, number, perplexity, text_meaning
from evomerge.results.curves import curves
from evomerge.version import __version__
from evomerge.visible import visible

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; }
body { margin: 0 auto; max-width: 1080px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 8px; border-top: 1px solid #e4e7eb; padding-top: 20px; }
p { margin: 6px 0; }
.lead { color: #52606d; }
.cards { display: flex; gap: 16px; flex-wrap: wrap; margin: 18px 0; }
.card { border: 1px solid #e4e7eb; border-radius: 8px; padding: 12px 18px; min-width: 170px; }
.card b { display: block; font-size: 22px; }
.card span { color: #52606d; font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 4px 18px 4px 0; white-space: nowrap; border-bottom: 1px solid #f0f2f5; }
th:first-child, td:first-child, .words td { text-align: left; }
th { color: #52606d; font-weight: 600; }
tr.best td { font-weight: 650; }
pre { background: #f5f7fa; border-radius: 4px; padding: 10px 14px; overflow-x: auto; }
"""


MARK = "<meta name='generator' content='evomerge'>"
OPENING = "<!doctype html><html lang='en'><head><meta charset='utf-8'>"


def write_report(results: Results, out: Path, *, force: bool = False) -> Path:
    """Write the page; with `force` in place of another report.

    Raises:
        SpecError: something else is at `out`, or no file can be.
        RunError: the disk is full, or something came to be at `out` meanwhile.
    """
    target = Target.file(out, _not_a_report, force=force)
    page = "\n".join(
        [
            f"{OPENING}{MARK}",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{_text(results.store.folder.name)} · evomerge</title><style>{STYLE}</style>",
            f"<script>{get_plotlyjs()}</script></head><body>",
            *_sections(results),
            "</body></html>",
        ]
    )
    write_file(target, page.encode())
    return out


def _not_a_report(path: Path) -> str | None:
    """What is wrong with replacing a file: it is no report. Those of old had no mark, but a title."""
    with path.open("rb") as file:
        head = file.read(1000).decode(errors="replace")
    known = MARK in head or " · evomerge</title><style>" in head
    return None if head.startswith(OPENING) and known else "is not a report of evomerge's"


def _sections(results: Results) -> Iterable[str]:
    yield _head(results)
    if not results.front:
        yield "<p>No candidate has been scored yet.</p>"
        return
    one = len(results.objectives) == 1
    yield _section(
        "Search against held-out items" if one else "Pareto front",
        "Grey is what the search believed, blue what held-out items say; bars and brackets are 95 % intervals, ± is one"
        " standard error."
        if results.is_confirmed
        else "Not confirmed yet: these values are the search's own, and optimistic.",
        _learned(results),
        _figure(with_curves(figures.front(results), results)),
        _front_table(results),
    )
    if results.is_confirmed:
        yield _beliefs(results)
    yield _section("Parents and fixed recipes", "What needs no search, on the same items.", _baseline_table(results))
    if any(row.drift for row in results.rows.values()):
        yield _section("Drift", f"Perplexity {text_meaning(results)}.", _drift_table(results))
    if any(row.report for row in results.rows.values()):
        text = "On report items, which neither search nor choice has seen."
        yield _section("Report items", text, _report_table(results))
    yield _section("Convergence", "On the search items.", _figure(figures.convergence(results)))
    if results.best is not None:
        yield _coefficients(results.best.number, results.recipe(results.best.number))
        if results.best.confirmed is not None:
            text = "The best candidate and the best parent of each objective on the same held-out items, item by item."
            yield _section("Tasks", text, _task_table(results, results.best))
    yield _section("Failures", "", _failures(results))
    yield _section("Time", "", _figure(figures.time_spent(results)))
    yield _section("Environment", "", _environment(results))


def _learned(results: Results) -> str:
    """What the line in the plane of two objectives is."""
    if not (found := curves(results)):
        return ""
    first, count = _text(results.objectives[0]), len(found[-1])
    return (
        f"<p>The line is a front that was learned as one function of the trade-off; its {count} points are named by"
        f" their weight of {first}. <code>export --pick tradeoff:W</code> writes the model of any other weight.</p>"
    )


def _coefficients(number: int, recipe: Recipe) -> str:
    whose, own = f"Weights of candidate {number}, the best, by layer", own_weights(recipe)
    if own:
        return _section("Coefficients", f"{whose} and tensor, the mean of each.", _figure(grains.coefficients(own)))
    return _section("Coefficients", f"{whose}; outer groups at the ends.", _figure(figures.coefficients(recipe)))


def _head(results: Results) -> str:
    found = results.to_json()
    counts = found["evaluations"]
    cards = [
        (
            f"{counts['done']}{' of ' + str(counts['budget']) if counts['budget'] else ''}",
            f"candidates, {counts['failed']} failed",
        ),
        (found["state"], "state"),
    ]
    best = results.best
    if best is not None:
        cards += [
            (number(best, results.trusted(best), label), f"{label}, best candidate {best.number}")
            for label in results.objectives
        ]
        for label, (rival, pair) in results.best_fixed(best).items():
            cards.append((difference(best, label, pair), f"{label}, minus best fixed recipe ({rival})"))
    volumes = found["hypervolume"]
    if volumes:
        cards.append((f"{volumes['front']:.4f}", f"hypervolume; fixed recipes {volumes['fixed']:.4f}"))
    boxes = "".join(f"<div class='card'><b>{_text(value)}</b><span>{_text(name)}</span></div>" for value, name in cards)
    run = results.file.spec
    experts = ", ".join(run.models.experts)
    kind, why = run.optimizer.kind, results.file.why
    base = f" over base {Path(run.models.base).name}" if isinstance(run.models.base, str) else ""
    lead = f"{experts}{base} · {kind} · seed {run.seed}"
    lead += f" · {kind}: {why}" if why is not None else ""
    caveats = "".join(f"<p><b>{_text(caveat)}</b></p>" for caveat in results.store.table.caveats())
    head = f"<h1>{_text(results.store.folder.name)}</h1><p class='lead'>{_text(lead)}</p>"
    return f"{head}<div class='cards'>{boxes}</div>{caveats}"


def _front_table(results: Results) -> str:
    head = ["candidate"]
    for label in results.objectives:
        head += [f"{label}: search", "shrunken", "confirmed", *(f"minus {name}" for name in RIVALS.values())]
    rows = []
    for row in results.front:
        cells, paired = [row.name], results.paired(row)
        for label in results.objectives:
            cells += [number(row, which, label) for which in ("search", "shrunken", "confirmed")]
            cells += [difference(row, label, paired[key][label][1]) if label in paired[key] else "" for key in RIVALS]
        rows.append((cells, results.best is not None and row.number == results.best.number))
    return _table(head, rows)


def _beliefs(results: Results) -> str:
    """The search's numbers beside the true ones, and how much too good they were."""
    text = (
        "Search numbers flatter the best of many: luck is part of why they are the best. Shrunken ones take it out, by"
        " what similar candidates got. Confirmed ones were measured on items that the search never saw, which may also"
        " be a little harder or easier for all models."
    )
    naive, shrunken = results.optimism("search"), results.optimism("shrunken")
    sentences = [
        f"{label}: on average over the finalists the search's number was {_too_good(naive[label])}"
        + (f", the shrunken one {_too_good(shrunken[label])}." if label in shrunken else ".")
        for label in naive
    ]
    said = "".join(f"<p>{_text(sentence)}</p>" for sentence in sentences)
    drawn = (
        _figure(figures.beliefs(results, label)) for label in results.objectives if label not in results.grader.costs
    )
    return _section("What the search believed, and what was true", text, said, *drawn)


def _too_good(gap: float) -> str:
    return f"{abs(gap):.3f} too {'good' if gap >= 0 else 'bad'}"


def _baseline_table(results: Results) -> str:
    head = ["model"] + [f"{label}: {which}" for label in results.objectives for which in ("search", "confirmed")]
    rows = []
    for row in results.baselines:
        cells = [row.name]
        for label in results.objectives:
            cells += [number(row, "search", label), number(row, "confirmed", label)]
        rows.append((cells, False))
    return _table(head, rows)


def _drift_table(results: Results) -> str:
    rows = [row for row in (*results.front, *results.baselines) if row.drift is not None]
    return _table(["model", "perplexity"], [([row.name, perplexity(row)], row == results.best) for row in rows])


def _report_table(results: Results) -> str:
    rows = [row for row in (*results.front, *results.baselines) if row.report is not None]
    cells = [[row.name, *(number(row, "report", label) for label in results.objectives)] for row in rows]
    return _table(
        ["model", *results.objectives], [(line, row == results.best) for line, row in zip(cells, rows, strict=True)]
    )


def _task_table(results: Results, row: Row) -> str:
    """Confirm items on which the row is better (gained) and worse (lost) than the parent best at the objective."""
    rows = []
    for label, (rival, _) in results.best_parent(row).items():
        number = next(other.number for other in results.baselines if other.name == rival)
        mine, theirs = results.marks(row.number, "confirm") or {}, results.marks(number, "confirm") or {}
        for key in results.fitness.keys(label):
            metric = results.store.table.tasks[key].metric(results.fitness.objectives[label].metric) or ""
            pairs = list(zip(mine[key][metric], theirs[key][metric], strict=True))
            shares = results.store.table.tasks[key].confirm.shares()
            means = [f"{shares @ column:.3f}" for column in zip(*pairs, strict=True)]
            gains = [results.grader.sign(label) * (a - b) for a, b in pairs]
            counts = [str(sum(gain > 0 for gain in gains)), str(sum(gain < 0 for gain in gains))]
            rows.append(([key, metric, str(len(pairs)), *means, rival, *counts], False))
    return _table(["task", "metric", "items", "this model", "best parent", "which is", "gained", "lost"], rows)


def _failures(results: Results) -> str:
    failures = results.to_json()["failures"]
    if not failures:
        return "<p>None.</p>"
    rows = [([f"candidate {f['number']}", f["stage"], f["reason"]], False) for f in failures]
    return _table(["candidate", "stage", "reason"], rows, words=True)


def _environment(results: Results) -> str:
    opened = results.state.opened
    facts = [("device", opened.device if opened else ""), *((opened.versions if opened else {}).items())]
    facts += [(f"parent {name}", parent.content() or "") for name, parent in results.file.parents.models.items()]
    facts.append(("report made by", f"evomerge {__version__}"))
    commands = f"evomerge export {results.store.folder.name} --pick best --out MODEL"
    table = _table(["", ""], [([name, value], False) for name, value in facts], words=True)
    return f"{table}<pre>{_text(commands)}</pre>"


def _section(title: str, text: str, *parts: str) -> str:
    return f"<h2>{_text(title)}</h2><p class='lead'>{_text(text)}</p>" + "".join(parts)


def _figure(figure: go.Figure) -> str:
    config = {"displaylogo": False, "responsive": True}
    plain = _plain(figure.to_plotly_json())
    found: str = to_html(plain, full_html=False, include_plotlyjs=False, config=config, validate=False)
    return found


def _plain(value: Any) -> Any:
    """A figure whose texts are shown as they are: Plotly takes some HTML in them for markup."""
    if isinstance(value, Mapping):
        return {key: each if key == "hovertemplate" else _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return html.escape(visible(value), quote=False) if isinstance(value, str) else value


def _table(head: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]], *, words: bool = False) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=best' if best else ''}>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
        for cells, best in rows
    )
    kind = " class=words" if words else ""
    return f"<div class='scroll'><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _text(value: object) -> str:
    return html.escape(visible(value))
