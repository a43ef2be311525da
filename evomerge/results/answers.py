"""Scores of a candidate's items, as an optimiser is told of them."""

from evomerge.results.state import RunState
from evomerge.store import RunStore
from evomerge.trial import Observation


def with_scores(observation: Observation, state: RunState, store: RunStore, works: int | None = None) -> Observation:
    """An observation with the scores of the search items that its candidate was put to, of an item the latest.

    They are those of its first so many works that came back, all if left out. One that gave none stays as it is.
    """
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    number = observation.number if observation.number is not None else -1
    for event in state.scored.get((number, "search"), [])[:works]:
        places = state.works[event.work].draw.places
        for task, scores in (store.scores(event) or {}).items():
            where = range(len(scores)) if places is None else places[task]
            found.setdefault(task, {}).update(zip(where, scores, strict=True))
    if not found:
        return observation
    rows = {task: tuple(each) for task, each in found.items()}
    scores_by_task = {task: tuple(each.values()) for task, each in found.items()}
    return observation.model_copy(update={"rows": rows, "scores": scores_by_task})
