"""What the workers of a run did: how they stand, who did how much, what befell them."""

from typing import Any

from evomerge.events import Incident
from evomerge.results.process import worker_names
from evomerge.results.state import RunState


def pool_keys(state: RunState) -> dict[str, Any]:
    """What `show --json` says of workers: of those of the latest process that wrote of any, and all incidents."""
    return {
        "workers": _workers(state),
        "accelerator_hours": state.accelerator_seconds() / 3600,
        "incidents": [_told(incident) for incident in state.incidents],
    }


def _told(incident: Incident) -> dict[str, Any]:
    """What befell a worker; whose and over which work only where that is known."""
    plain = {"at": incident.at, "stage": incident.stage, "what": incident.what}
    whose = {"worker": incident.worker or None, "work": incident.work}
    return plain | {name: value for name, value in whose.items() if value is not None}


def _workers(state: RunState) -> dict[str, Any] | None:
    process = next((each for each in reversed(state.processes) if each.standing is not None), None)
    if process is None or process.standing is None:
        return None
    stands, held = process.standing, process.held()
    counts = {name: getattr(stands, name) for name in ("ready", "starting", "busy", "queued")}
    return {**counts, "utilisation": process.used() / held if held else 0.0, "each": _each(state)}


def _each(state: RunState) -> dict[str, dict[str, float]]:
    """Works and seconds of every worker; a work that was split counts for each, and its seconds evenly."""
    found: dict[str, dict[str, float]] = {}
    for evaluated in state.outcomes.values():
        names = worker_names(evaluated)
        for name in names:
            mine = found.setdefault(name, {"works": 0, "seconds": 0.0})
            mine["works"] += 1
            mine["seconds"] += (evaluated.seconds.merge + evaluated.seconds.score) / len(names)
    return found
