"""Searches on clusters whose workers, nodes and head are killed under them."""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import content, events
from processes import AUTH, Nodes, driving, evaluated, kill, lines, surroundings, until, write_run


def test_a_search_whose_workers_are_killed_all_the_time_is_the_same(tmp_path: Path) -> None:
    """Twenty of them on two nodes, of which one is lost and replaced."""
    rng = random.Random(1)
    options = {"kind": "ray", "deaths": 10}
    spec = write_run(tmp_path, executor=options, budget={"evaluations": 160})
    with Nodes() as nodes:
        nodes.start(1)
        second = nodes.start(1)
        arguments = ("search", spec, tmp_path / "RUN")
        around = {"RAY_ADDRESS": nodes.address, **AUTH}
        with driving(tmp_path, *arguments, seconds=0.2, **around) as driver:
            until(lambda: evaluated(tmp_path / "RUN") > 3, 90, lambda: driver.said)
            killed, ends = 0, time.monotonic() + 150
            while killed < 20:
                assert driver.process.poll() is None and time.monotonic() < ends, (killed, driver.said)
                time.sleep(rng.uniform(0.1, 0.6))
                workers = [pid for node in nodes.nodes for pid in node.processes("ray::Worker.evaluate")]
                killed += kill(rng.choice(workers)) if workers else 0
                if killed == 8 and second.process.poll() is None:
                    second.lose()
                    nodes.start(1)
            driver.ends(0, 120)
    undisturbed = write_run(tmp_path, executor="inline", budget={"evaluations": 160})
    with driving(tmp_path, "search", undisturbed, tmp_path / "alone") as driver:
        driver.ends(0, 60)
    incidents = [event["what"] for event in events(tmp_path / "RUN") if event["kind"] == "incident"]
    assert len(incidents) >= 20
    assert not [what for what in incidents if "rpc" in what.lower()], "each is told in our words"
    assert content(tmp_path / "RUN") == content(tmp_path / "alone")


@pytest.mark.parametrize(
    ("optimizer", "labels", "population", "workers"), [("cma", "a", 3, 4), ("nsga2", "ab", 6, 2), ("nsga2", "ab", 4, 5)]
)
def test_workers_find_what_one_process_finds(
    optimizer: str, labels: str, population: int, workers: int, tmp_path: Path
) -> None:
    """With more workers than candidates in a generation, each works on some of the items of one."""
    changes = {
        "labels": labels,
        "optimizer": {"kind": optimizer, "population": population, "mode": "generation"},
        "budget": {"evaluations": 30},
    }
    # So slow that all workers are there before it ends.
    slow = 0.7 if workers > population else 0.1
    for out, executor, seconds in (("far", {"kind": "ray", "workers": workers}, slow), ("here", "inline", 0.0)):
        spec = write_run(tmp_path, executor=executor, **changes)
        with driving(tmp_path, "search", spec, tmp_path / out, seconds=seconds) as driver:
            driver.ends(0, 120)
    assert content(tmp_path / "far") == content(tmp_path / "here")
    done = [event["worker"] for event in events(tmp_path / "far") if event["kind"] == "evaluated"]
    assert any("+" in worker for worker in done) == (workers > population)


@contextlib.contextmanager
def hogging(around: dict[str, str]) -> Iterator[None]:
    """While it lasts, the object store is full."""
    hog = subprocess.Popen([sys.executable, "-c", HOG], env=surroundings(**around), stdout=subprocess.PIPE, text=True)
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "full\n"
        yield
    finally:
        hog.kill()
        hog.communicate()


HOG = """
import ray, time
ray.init(log_to_driver=False)
kept = [ray.put(bytes(10 << 20)) for _ in range(20)]
print("full", flush=True)
time.sleep(1e6)
"""
"""Fills the object store, and more."""


def test_the_pool_grows_and_shrinks_with_the_cluster(tmp_path: Path) -> None:
    """Beside somebody else who fills the object store."""
    run = tmp_path / "RUN"
    spec = write_run(tmp_path, executor="ray", budget={"evaluations": 100_000})

    def reaches(ready: int) -> bool:
        found = [event for event in events(run) if event["kind"] == "workers"] if lines(run) else []
        return bool(found) and found[-1]["ready"] == ready

    with Nodes() as nodes:
        nodes.start(1, object_store_memory=80 << 20)
        around = {"RAY_ADDRESS": nodes.address, **AUTH}
        with hogging(around), driving(tmp_path, "search", spec, run, seconds=0.2, **around) as driver:
            until(lambda: reaches(1), 60, lambda: driver.said)
            second = nodes.start(1)
            until(lambda: reaches(2), 60, lambda: driver.said)
            at = evaluated(run)
            until(lambda: evaluated(run) > at + 8, 60, lambda: driver.said)
            workers = {event["worker"] for event in events(run)[-20:] if event["kind"] == "evaluated"}
            assert len(workers) == 2
            second.lose()
            until(lambda: reaches(1), 60, lambda: driver.said)
            at = evaluated(run)
            until(lambda: evaluated(run) > at + 8, 60, lambda: driver.said)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_lost_head_is_waited_for(is_ours: bool, tmp_path: Path) -> None:
    """One that the search started is started anew; one at an address is found again where it was."""
    run = tmp_path / "RUN"
    spec = write_run(tmp_path, executor={"kind": "ray", "workers": 2}, budget={"evaluations": 60})
    with Nodes() as nodes:
        head = None if is_ours else nodes.start(2)
        around = {} if is_ours else {"RAY_ADDRESS": nodes.address, **AUTH}
        with driving(tmp_path, "search", spec, run, seconds=0.4, **around) as driver:
            until(lambda: evaluated(run) > 3, 90, lambda: driver.said)
            servers = (driver if head is None else head).processes("gcs_server")
            assert sum(kill(pid) for pid in servers) == 1
            if head is not None:
                head.lose()
                until(lambda: "looking for it" in driver.said, 60, lambda: driver.said)
                nodes.start(2)
            driver.ends(0, 150)
    assert "the cluster is there again" in driver.said
    assert [event["what"] for event in events(run) if event["kind"] == "incident"] == ["the cluster was lost"]
    undisturbed = write_run(tmp_path, executor="inline", budget={"evaluations": 60})
    with driving(tmp_path, "search", undisturbed, tmp_path / "alone") as alone:
        alone.ends(0, 60)
    assert content(run) == content(tmp_path / "alone")
