"""Workers that die, hang and starve: each is named in the journal, and the search completes."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_MODELS, content, events
from processes import PATIENCE, Driver, driving, evaluated, undisturbed, until, write_run
from troubled import Troubled, memory_group

from evomerge.assemble import Elsewhere, resume

KILLED, HUNG, SHORT = "it was killed, or crashed", "it hung: no answer", "MemoryError: there is none"


@pytest.fixture
def can_limit() -> Iterator[bool]:
    """Whether processes can be put under a memory limit of their own; takes the limits away again."""
    try:
        mine = memory_group(str(os.getpid()))
    except OSError:
        yield False
        return
    before = set(mine.parent.glob("evomerge-*")) - {mine}
    yield True
    for group in {*mine.parent.glob("evomerge-*"), mine} - before:
        group.rmdir()


def meet(driver: Driver, run: Path, trouble: str) -> None:
    """Put a trouble in the way of a search that gets on, and wait until whoever met it is got over."""
    at = evaluated(run)
    until(lambda: evaluated(run) > at + 1, PATIENCE, lambda: driver.said)
    before = len(incidents_of(run))
    driver.meets(trouble)
    met = driver.troubles / f"{'met' if trouble.startswith('once') else 'victim'}-{trouble}"
    until(met.exists, PATIENCE, lambda: driver.said)
    if trouble != "once.nan":
        until(lambda: len(incidents_of(run)) > before and is_over(run), PATIENCE, lambda: driver.said)


def incidents_of(run: Path) -> list[Any]:
    return [event for event in events(run) if event["kind"] == "incident"]


def is_over(run: Path) -> bool:
    """Whether every work that met with something has come back."""
    works = {event["work"] for event in incidents_of(run)}
    return len(outcome_of(run, works)) == len(works)


def outcome_of(run: Path, works: set[Any]) -> list[Any]:
    return [event.get("failure") for event in events(run) if event["kind"] == "evaluated" and event["work"] in works]


def test_whatever_befalls_workers_is_named_and_survived(tmp_path: Path, can_limit: bool) -> None:
    run = tmp_path / "RUN"
    options = {"kind": "ray", "workers": 2, "deadline": 3, "deaths": 2}
    spec = write_run(tmp_path, executor=options, budget={"evaluations": 250})
    passing = {"once.exit": KILLED, "once.hang": HUNG, "once.stop": HUNG, "once.memory": SHORT}
    passing |= {"once.limit": KILLED} if can_limit else {}
    lasting = {"poison.kill": KILLED, "poison.memory": SHORT}
    with driving(tmp_path, "search", spec, run, seconds=0.05) as driver:
        for trouble in (*lasting, *passing, "once.nan"):
            meet(driver, run, trouble)
        said = driver.ends(0, PATIENCE)
    assert "(raylet)" not in said, "what befalls workers is said in our words"
    incidents = incidents_of(run)
    expected = [lasting["poison.kill"]] * 2 + [lasting["poison.memory"]] * 2 + list(passing.values())
    assert [event["what"][: len(what)] for event, what in zip(incidents, expected, strict=True)] == expected
    assert all(event["worker"] and event["work"] is not None for event in incidents)
    assert outcome_of(run, {event["work"] for event in incidents[4:]}) == [None] * len(passing), "they were done again"
    failures = [event["failure"] for event in events(run) if event["kind"] == "evaluated" and event.get("failure")]
    tries = [{"stage": "worker", "reason": f"2 tries came to nothing, the last: {why}"} for why in lasting.values()]
    assert failures[:2] == tries
    assert [failure["stage"] for failure in failures[2:]] == ["grade"], "numbers that are none are not asked for again"
    assert len(content(run)["evaluated"]) == len(content(run)["assigned"])
    assert "250 of 250 evaluations" in said


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(("damage", "is_restored"), [(cut_short, False), (Path.unlink, True)])
def test_a_parent_that_is_cut_short_or_vanishes_is_named(
    damage: Callable[[Path], None], is_restored: bool, tmp_path: Path
) -> None:
    """Workers are replaced until it is whole again; where it stays as it is, the search stops and can go on."""
    models, run = tmp_path / "models", tmp_path / "RUN"
    shutil.copytree(DEMO_MODELS, models)
    spec = write_run(tmp_path, models=models)
    file = models / "maths/model.safetensors"
    whole = file.read_bytes()
    with driving(tmp_path, "search", spec, run, seconds=0.3) as driver:
        until(lambda: evaluated(run) > 5, PATIENCE, lambda: driver.said)
        damage(file)
        until(lambda: any(str(file) in event.get("what", "") for event in events(run)), PATIENCE, lambda: driver.said)
        if not is_restored:
            assert str(file) in driver.ends(2, PATIENCE)
        file.write_bytes(whole)
        if is_restored:
            driver.ends(0, PATIENCE)
    if not is_restored:
        resume(run, scorer=Troubled(str(driver.troubles)), elsewhere=Elsewhere(executor="inline"))
    assert content(run) == undisturbed(tmp_path, models=models)
