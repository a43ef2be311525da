"""The figures of a report."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from evomerge.recipe import Blend, Layer, Recipe
from evomerge.results import Results, Row, Which, hypervolume, non_dominated, worst

SEARCH, CONFIRMED, FIXED, PARENT, BEST = "#9aa5b1", "#2563eb", "#d97706", "#111827", "#dc2626"
HEIGHT = 420
WIDE = 1040


def styled(figure: go.Figure, *, height: int = HEIGHT) -> go.Figure:
    """A figure in the manner of the page."""
    figure.update_layout(
        template="simple_white",
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 70, "r": 20, "t": 30, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"namelength": -1},
    )
    return figure


def front(results: Results) -> go.Figure:
    """Search against confirmed values: for one objective as a list, for several in the plane of the first two."""
    return _ladder(results) if len(results.objectives) == 1 else _plane(results)


def _ladder(results: Results) -> go.Figure:
    """One objective: fixed recipes and finalists from worst to best, search and confirmed value of each."""
    label = results.objectives[0]
    rows = [*results.baselines, *(row for row in results.front if row not in results.baselines)]
    rows = sorted((row for row in rows if results.known(row)), key=results.scalar)
    figure = go.Figure()
    searched = [(row, row.search[label]) for row in rows if row.search]
    confirmed = [(row, row.confirmed[label]) for row in rows if row.confirmed]
    for name, shown, colour in (("search items", searched, SEARCH), ("held-out items", confirmed, CONFIRMED)):
        figure.add_trace(
            go.Scatter(
                x=[value for _, (value, _) in shown],
                y=[row.name for row, _ in shown],
                error_x={"array": [1.96 * error for _, (_, error) in shown], "thickness": 1.2, "width": 3},
                mode="markers",
                name=name,
                marker={"color": colour, "size": 9},
            )
        )
    figure.update_xaxes(title=_axis(results, label, "bars: 95 %"), showgrid=True)
    figure.update_yaxes(type="category", automargin=True)
    return styled(figure, height=120 + 26 * len(rows))


def _plane(results: Results) -> go.Figure:
    x, y = results.objectives[:2]
    figure = go.Figure()
    every = [row for row in results.rows.values() if row.search and row.origin != "baseline"]
    figure.add_trace(_cloud("all candidates, search items", every, x, y, SEARCH))
    for row in results.front:
        if row.search and row.confirmed:
            figure.add_trace(_shift(row, x, y))
    named = [row for row in results.baselines if results.known(row)]
    figure.add_trace(
        points("fixed recipes", [r for r in named if r.name not in results.parent_names], results, x, y, FIXED)
    )
    figure.add_trace(points("parents", [r for r in named if r.name in results.parent_names], results, x, y, PARENT))
    best = [row for row in results.front if results.best and row.number == results.best.number]
    others = [row for row in results.front if row not in best]
    figure.add_trace(
        points("front, held-out items" if results.is_confirmed else "front", others, results, x, y, CONFIRMED)
    )
    figure.add_trace(points("best", best, results, x, y, BEST))
    figure.update_xaxes(title=_axis(results, x), showgrid=True)
    figure.update_yaxes(title=_axis(results, y), showgrid=True)
    return styled(figure, height=560)


def _axis(results: Results, label: str, *remarks: str) -> str:
    """An axis's title, which says where lower is better."""
    said = [*(["lower is better"] if results.grader.sign(label) < 0 else []), *remarks]
    return f"{label} ({'; '.join(said)})" if said else label


def _cloud(name: str, rows: Sequence[Row], x: str, y: str, colour: str) -> go.Scatter:
    values = [row.search for row in rows if row.search is not None]
    return go.Scatter(
        x=[v[x][0] for v in values],
        y=[v[y][0] for v in values],
        text=[row.name for row in rows],
        mode="markers",
        name=name,
        marker={"color": colour, "size": 5, "opacity": 0.6},
    )


def _shift(row: Row, x: str, y: str) -> go.Scatter:
    """A thin line from what the search believed to what held-out items say."""
    assert row.search is not None
    assert row.confirmed is not None
    return go.Scatter(
        x=[row.search[x][0], row.confirmed[x][0]],
        y=[row.search[y][0], row.confirmed[y][0]],
        mode="lines",
        line={"color": SEARCH, "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )


def points(name: str, rows: Sequence[Row], results: Results, x: str, y: str, colour: str) -> go.Scatter:
    """Models where they are known to be, with 95 % intervals."""
    known = [results.known(row) for row in rows]
    bars = {"thickness": 1, "width": 0}
    return go.Scatter(
        x=[values[x][0] for values in known],
        y=[values[y][0] for values in known],
        error_x={"array": [1.96 * values[x][1] for values in known], **bars},
        error_y={"array": [1.96 * values[y][1] for values in known], **bars},
        text=[row.name for row in rows],
        mode="markers",
        name=name,
        marker={"color": colour, "size": 10},
    )


def beliefs(results: Results, label: str) -> go.Figure:
    """What search, neighbours and held-out items say of every finalist in one objective, with 95 % intervals."""
    known_rows = [row for row in (results.rows[number] for number in results.finalists) if results.known(row)]
    rows = sorted(known_rows, key=results.scalar)
    kinds: dict[Which, str] = {"search": SEARCH, "shrunken": FIXED, "confirmed": CONFIRMED}
    figure = go.Figure()
    for place, (which, colour) in enumerate(kinds.items()):
        known = [(y, row) for y, row in enumerate(rows) if label in row.values(which)]
        figure.add_trace(
            go.Scatter(
                x=[row.values(which)[label][0] for _, row in known],
                y=[y + 0.22 * (1 - place) for y, _ in known],
                error_x={**_reaches([row for _, row in known], which, label), "thickness": 1.2, "width": 3},
                text=[row.name for _, row in known],
                mode="markers",
                name=which,
                marker={"color": colour, "size": 8},
            )
        )
    figure.update_xaxes(title=_axis(results, label, "bars: 95 %"), showgrid=True)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[row.name for row in rows], automargin=True)
    return styled(figure, height=120 + 40 * len(rows))


def _reaches(rows: Sequence[Row], which: Which, label: str) -> dict[str, list[float]]:
    """How far 95 % intervals reach to the right and to the left of their values."""
    pairs = [(row, *row.values(which)[label]) for row in rows]
    ends = [
        row.interval[label]
        if which == "confirmed" and row.interval is not None
        else (value - 1.96 * error, value + 1.96 * error)
        for row, value, error in pairs
    ]
    known = list(zip(ends, pairs, strict=True))
    return {
        "array": [high - value for (_, high), (_, value, _) in known],
        "arrayminus": [value - low for (low, _), (_, value, _) in known],
    }


def convergence(results: Results) -> go.Figure:
    """Best so far, or hypervolume so far, on the search items, against what needs no search."""
    rows = [row for row in results.rows.values() if row.origin != "baseline" and row.search]
    if len(results.objectives) == 1:
        title, level = results.objectives[0], _best_so_far(results, rows)
        fixed = [(row.name, row.search[title][0]) for row in results.baselines if row.search]
        points = [row.search[title][0] for row in rows if row.search]
    else:
        title, level, fixed, points = "hypervolume", *_volume_so_far(results, rows), []
    figure = go.Figure()
    if points:
        figure.add_trace(
            go.Scatter(
                x=_counts(rows), y=points, mode="markers", name="candidates", marker={"color": SEARCH, "size": 5}
            )
        )
    figure.add_trace(
        go.Scatter(x=_counts(rows), y=level, mode="lines", name="best so far", line={"color": CONFIRMED, "width": 2.5})
    )
    sign = results.grader.sign(results.objectives[0]) if len(results.objectives) == 1 else 1
    for name, value in sorted(fixed, key=lambda entry: -sign * entry[1])[:1]:
        line = {"color": FIXED, "dash": "dash"}
        label = f"best without a search: {name}"
        figure.add_trace(go.Scatter(x=[1, len(rows)], y=[value, value], mode="lines", name=label, line=line))
    figure.update_xaxes(title="candidates")
    figure.update_yaxes(title=f"{title}, search items", showgrid=True)
    return styled(figure)


def _counts(rows: Sequence[Row]) -> list[int]:
    return list(range(1, len(rows) + 1))


def _best_so_far(results: Results, rows: Sequence[Row]) -> list[float]:
    label = results.objectives[0]
    pick: Callable[[float, float], float] = max if results.grader.sign(label) > 0 else min
    level: list[float] = []
    for row in rows:
        assert row.search is not None
        value = row.search[label][0]
        level.append(value if not level else pick(level[-1], value))
    return level


def _volume_so_far(results: Results, rows: Sequence[Row]) -> tuple[list[float], list[tuple[str, float]]]:
    fixed = [results.grader.oriented(row.search) for row in results.baselines if row.search]
    points = [results.grader.oriented(row.search) for row in rows if row.search]
    reference = worst([*fixed, *points], results.grader.are_costs)
    level, front_so_far = [], []
    for point in points:
        front_so_far.append(point)
        front_so_far = [front_so_far[i] for i in non_dominated(front_so_far)]
        level.append(hypervolume(front_so_far, reference))
    return level, [("all fixed recipes together", hypervolume(fixed, reference))] if fixed else []


def coefficients(recipe: Recipe) -> go.Figure:
    """What each parent gives to each layer, component and outer group: weights as a heat map."""
    places = _places(recipe)
    parents = [name for name in recipe.parents if any(name in weights for _, weights in places)]
    z = [[weights.get(name) for _, weights in places] for name in parents]
    largest = max((abs(value) for line in z for value in line if value is not None), default=1.0)
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=[label for label, _ in places],
            y=parents,
            zmin=-largest,
            zmax=largest,
            colorscale="RdBu",
            reversescale=True,
            text=[["" if value is None else f"{value:.2f}" for value in line] for line in z],
            texttemplate="%{text}" if len(places) <= 40 else None,
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
            colorbar={"title": "weight"},
        )
    )
    figure.update_xaxes(type="category", tickangle=-45)
    return styled(figure, height=170 + 42 * len(parents))


def _places(recipe: Recipe) -> list[tuple[str, dict[str, float]]]:
    """Parts of the model in the order data flows through them, with the weight of every source."""
    inner = []
    for index, layer in enumerate(recipe.layers):
        place = _place(index, layer)
        parts = {
            "": layer.blend,
            **{f" {name}": part for name in ("mlp", "norm") if (part := getattr(layer, name)) is not None},
        }
        for suffix, blend in parts.items():
            label = f"{place}{suffix}" if len(parts) == 1 or suffix else f"{place} attention"
            inner.append((label, _weights(blend)))
    before = [(name, _weights(blend)) for name, blend in recipe.outer.items() if name == "embeddings"]
    after = [(name, _weights(blend)) for name, blend in recipe.outer.items() if name != "embeddings"]
    return [*before, *inner, *after]


def _place(index: int, layer: Layer) -> str:
    """A layer's number, which layer of the parents it is where that is another, and its scale if it has one."""
    source = layer.blend.everything()[0].layer
    moved = "" if source == index else f" (layer {source})"
    return f"{index}{moved}" + (f" × {layer.scale:.3g}" if layer.scale != 1.0 else "")


def _weights(blend: Blend) -> dict[str, float]:
    return {source.parent: weight for source, weight in zip(blend.sources, blend.weights(), strict=True)}


def time_spent(results: Results) -> go.Figure:
    """Where the seconds went."""
    seconds = results.to_json()["seconds"]
    names = {"merge": "merging", "score": "scoring", "overhead": "all else, loading included"}
    figure = go.Figure()
    for (key, name), colour in zip(names.items(), (FIXED, CONFIRMED, SEARCH), strict=True):
        figure.add_trace(
            go.Bar(
                x=[seconds[key]],
                y=["time"],
                name=name,
                orientation="h",
                marker={"color": colour},
                text=[f"{seconds[key]:.1f} s"],
                hovertemplate=f"{name}: %{{x:.1f}} s<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="seconds")
    figure.update_yaxes(visible=False)
    return styled(figure, height=190)
