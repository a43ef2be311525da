"""Documents that a metric says nothing of: where it is NaN and its task's own aggregation leaves NaN out."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.task import Task

from evomerge.score.tasks import MADE_UP, graded, mark_of, metric_name

ANSWERS: tuple[dict[str, Any], ...] = (
    MADE_UP,
    {"loglikelihood": (-2.0, True), "loglikelihood_rolling": -2.0, "generate_until": "Yes, because."},
)
"""Made-up answers to each type of request: what is undefined after all of them is undefined whatever is answered."""


def skips_undefined(aggregate: Callable[[list[float]], Any]) -> bool:
    """Whether an aggregation is the mean of what is defined, as `nanmean` is."""
    with contextlib.suppress(Exception):
        return math.isclose(float(aggregate([0.25, math.nan, 0.75])), 0.5)
    return False


def undefined_documents(task: Task, docs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> set[int]:
    """Places of documents for which one of these metrics is undefined, whatever a model answers.

    Metrics are named as in a fitness file. Only those whose aggregation leaves NaN out are looked at: for all others
    NaN is no mark.
    """
    aggregations = task.aggregation()
    wanted = [name for name in metrics if skips_undefined(aggregations.get(name.split(",")[0], math.fsum))]
    if not wanted:
        return set()
    return {place for place, doc in enumerate(docs) if any(_undefined(task, doc, name) for name in wanted)}


def _undefined(task: Task, doc: Mapping[str, Any], name: str) -> bool:
    try:
        return all(math.isnan(_made_up(task, doc, answers).get(name, 0.0)) for answers in ANSWERS)
    except Exception:  # noqa: BLE001  A task's own code may take nothing but real answers; then nothing is known.
        return False


def _made_up(task: Task, doc: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, float]:
    filters = [ensemble.name for ensemble in task._filters]
    found = {}
    for name, rows in graded(task, doc, answers).items():
        for metric, value in rows.items():
            mark = mark_of(metric, value)
            if mark is not None:
                found[metric_name(metric, name, filters)] = mark
    return found
