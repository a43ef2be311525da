"""Scores of a candidate's items, as an optimiser is told of them."""

from collections.abc import Iterable

from evomerge.events import Evaluated
from evomerge.results.state import RunState
from evomerge.store import RunStore
from evomerge.trial import Observation


def with_scores(observation: Observation, state: RunState, store: RunStore, works: int | None = None) -> Observation:
    """An observation with the scores of the search items that its candidate was put to, of an item the latest.

    They are those of its first so many works that came back, all if left out. One that gave none stays as it is.
    """
    number = observation.number if observation.number is not None else -1
    found = scores_of(state.scored.get((number, "search"), [])[:works], state, store)
    if not found:
        return observation
    rows = {task: tuple(each) for task, each in found.items()}
    scores_by_task = {task: tuple(each.values()) for task, each in found.items()}
    return observation.model_copy(update={"rows": rows, "scores": scores_by_task})


def scores_of(events: Iterable[Evaluated], state: RunState, store: RunStore) -> dict[str, dict[int, tuple[float, ...]]]:
    """Scores of the items that came back with these works, by task and place in its pool; of an item the latest."""
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for event in events:
        places = state.works[event.work].draw.places
        for task, scores in (store.scores(event) or {}).items():
            where = range(len(scores)) if places is None else places[task]
            found.setdefault(task, {}).update(zip(where, scores, strict=True))
    return found
