"""What is shown of workers and of what befell them, also where little is known of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Typed

from evomerge.events import Closed, Incident, Opened, Workers
from evomerge.spec import Budget
from evomerge.store import RunStore


def test_every_kind_of_incident_is_shown(copy_of_run: Callable[[str], Path], cli: Callable[..., Typed]) -> None:
    run = copy_of_run("one")
    before = json.loads(cli("show", run, "--json").out)["seconds"]
    store = RunStore(run, write=True)
    store.append(Opened(at=100.0, budget=Budget(evaluations=40), executor="ray", device="cpu"))
    store.append(Workers(at=110.0, ready=2, starting=1, busy=1, queued=3, held=20.0, used=15.0))
    store.append(Incident(at=101.0, stage="start", what="a worker could not be set up"))
    store.append(Incident(at=102.0, stage="cluster", what="the cluster was lost"))
    store.append(Incident(at=103.0, what="it was killed", work=7, worker="here:12"))
    store.append(Closed(at=110.0, state="finished"))
    store.close()
    text = cli("show", run).out
    for line in (
        "workers: 2 ready, 1 starting, 1 busy, 3 queued; 75% of their time used",
        "incidents: 3, the last:",
        "  start: a worker could not be set up",
        "  cluster: the cluster was lost",
        "  work 7, here:12: it was killed",
    ):
        assert line in text
    found = json.loads(cli("show", run, "--json").out)
    assert found["seconds"]["overhead"] == pytest.approx(before["overhead"] + 20), "what workers were held and not used"
    assert found["incidents"] == [
        {"at": 101.0, "stage": "start", "what": "a worker could not be set up"},
        {"at": 102.0, "stage": "cluster", "what": "the cluster was lost"},
        {"at": 103.0, "stage": "work", "what": "it was killed", "worker": "here:12", "work": 7},
    ]
