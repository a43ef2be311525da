"""Learned fronts drawn as curves: all their points in the order of trade-offs, those that others beat included."""

import plotly.graph_objects as go

from evomerge.report.figures import CONFIRMED, SEARCH, points
from evomerge.results import Results
from evomerge.results.curves import curves

OLDER = {"color": SEARCH, "dash": "dot", "width": 1.5}


def with_curves(figure: go.Figure, results: Results) -> go.Figure:
    """A figure of the plane of the first two objectives, with the fronts that were learned of them, the last one solid.

    Points are where held-out items see them, or search items before confirmation; bars are 95 %.
    """
    found = curves(results)
    for place, curve in enumerate(found, start=1):
        last = place == len(found)
        rows = [row for row in curve if results.known(row)]
        x, y = results.objectives[:2]
        where = "held-out items" if results.is_confirmed else "search items"
        name = f"learned curve, {where}" if last else f"learned before, {where}"
        trace = points(name, rows, results, x, y, CONFIRMED)
        trace.mode, trace.line = "lines+markers", {"color": CONFIRMED, "width": 2} if last else OLDER
        trace.marker = {"color": CONFIRMED if last else SEARCH, "size": 6}
        trace.text = [f"{row.name} (weight of {x})" for row in rows]
        figure.add_trace(trace)
    return figure
