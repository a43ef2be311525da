"""The figure of a recipe in which single tensors have weights of their own."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from evomerge.recipe import Own
from evomerge.report.figures import styled

OUTSIDE = "outside"


def coefficients(own: Sequence[Own]) -> go.Figure:
    """Weights by layer and kind of tensor, one heat map a parent; of weights within a tensor their mean."""
    voices = list(dict.fromkeys(each.voice for each in own))
    kinds = list(dict.fromkeys(each.kind for each in own))[::-1]  # Heat maps grow upwards.
    places = list(dict.fromkeys(_place(each) for each in own))
    means = {(each.voice, each.kind, _place(each)): float(each.weights.mean()) for each in own}
    largest = max(map(abs, means.values()), default=1.0)
    figure = make_subplots(rows=len(voices), cols=1, subplot_titles=voices, shared_xaxes=True)
    for row, voice in enumerate(voices, start=1):
        z = [[means.get((voice, kind, place)) for place in places] for kind in kinds]
        figure.add_trace(_map(z, places, kinds), row=row, col=1)
    figure.update_xaxes(type="category", tickangle=-45)
    figure.update_layout(
        coloraxis={
            "cmin": -largest,
            "cmax": largest,
            "colorscale": "RdBu",
            "reversescale": True,
            "colorbar": {"title": "weight"},
        }
    )
    return styled(figure, height=90 + len(voices) * (60 + 22 * len(kinds)))


def _map(z: Sequence[Sequence[float | None]], places: Sequence[str], kinds: Sequence[str]) -> go.Heatmap:
    shown = [["" if value is None else f"{value:.2f}" for value in line] for line in z]
    return go.Heatmap(
        z=z,
        x=places,
        y=kinds,
        coloraxis="coloraxis",
        text=shown,
        texttemplate="%{text}" if len(places) <= 40 else None,
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    )


def _place(own: Own) -> str:
    return OUTSIDE if own.layer is None else str(own.layer)
