"""Searches on clusters whose workers, nodes and head are killed under them."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import content, events
from network import Host, two_hosts
from processes import (
    AUTH,
    PATIENCE,
    Driver,
    Nodes,
    driving,
    evaluated,
    kill,
    lines,
    processes,
    surroundings,
    undisturbed,
    until,
    write_run,
)


def test_a_search_whose_workers_are_killed_all_the_time_is_the_same(tmp_path: Path) -> None:
    """Twenty of them on two nodes, of which one is lost and replaced."""
    rng = random.Random(1)
    options = {"kind": "ray", "deaths": 50}
    spec = write_run(tmp_path, executor=options, budget={"evaluations": 160})
    with Nodes() as nodes:
        nodes.start(1)
        second = nodes.start(1)
        arguments = ("search", spec, tmp_path / "RUN")
        around = {"RAY_ADDRESS": nodes.address, **AUTH}
        with driving(tmp_path, *arguments, seconds=0.2, **around) as driver:
            until(lambda: evaluated(tmp_path / "RUN") > 3, PATIENCE, lambda: driver.said)
            killed, ends = 0, time.monotonic() + 3 * PATIENCE
            while killed < 20:
                assert driver.process.poll() is None and time.monotonic() < ends, (killed, driver.said)
                time.sleep(rng.uniform(0.1, 0.6))
                workers = [pid for node in nodes.nodes for pid in node.processes("ray::Worker.evaluate")]
                killed += kill(rng.choice(workers)) if workers else 0
                if killed == 8 and second.process.poll() is None:
                    second.lose()
                    nodes.start(1)
            driver.ends(0, PATIENCE)
    incidents = [event["what"] for event in events(tmp_path / "RUN") if event["kind"] == "incident"]
    assert len(incidents) >= 20
    assert not [what for what in incidents if "rpc" in what.lower()], "each is told in our words"
    assert content(tmp_path / "RUN") == undisturbed(tmp_path, budget={"evaluations": 160})


@pytest.mark.parametrize(("optimizer", "labels", "population", "workers"), [("cma", "a", 3, 4), ("nsga2", "ab", 6, 2)])
def test_workers_find_what_one_process_finds(
    optimizer: str, labels: str, population: int, workers: int, tmp_path: Path
) -> None:
    """With more workers than candidates in a generation, each works on some of the items of one."""
    changes = {
        "labels": labels,
        "optimizer": {"kind": optimizer, "population": population, "mode": "generation"},
        "budget": {"evaluations": 20},
    }
    run, spec = tmp_path / "RUN", write_run(tmp_path, executor={"kind": "ray", "workers": workers}, **changes)
    # So slow that all workers are there before it ends.
    with driving(tmp_path, "search", spec, run, seconds=0.4 if workers > population else 0.1) as driver:
        driver.ends(0, PATIENCE)
    assert content(run) == undisturbed(tmp_path, **changes)
    done = [event["worker"] for event in events(run) if event["kind"] == "evaluated"]
    assert any("+" in worker for worker in done) == (workers > population)


@contextlib.contextmanager
def hogging(around: dict[str, str], host: Host | None) -> Iterator[None]:
    """While it lasts, the object store is full."""
    line = [sys.executable, "-c", HOG]
    line = line if host is None else host.within(line)
    hog = subprocess.Popen(line, env=surroundings(**around), stdout=subprocess.PIPE, text=True)
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
    """Beside somebody who fills the object store; the node that goes falls silent, if it can be on another host."""
    run = tmp_path / "RUN"
    spec = write_run(tmp_path, executor="ray", budget={"evaluations": 100_000})

    def reaches(ready: int) -> bool:
        found = [event for event in events(run) if event["kind"] == "workers"] if lines(run) else []
        return bool(found) and found[-1]["ready"] == ready

    with two_hosts() as (one, other), Nodes(one) as nodes:
        nodes.start(1, f"--object-store-memory={80 << 20}")
        around = {"RAY_ADDRESS": nodes.address, **AUTH}
        with hogging(around, one), driving(tmp_path, "search", spec, run, seconds=0.2, host=one, **around) as driver:
            until(lambda: reaches(1), PATIENCE, lambda: driver.said)
            second = nodes.start(1, host=other)
            until(lambda: reaches(2), PATIENCE, lambda: driver.said)
            at = evaluated(run)
            until(lambda: evaluated(run) > at + 8, PATIENCE, lambda: driver.said)
            workers = {event["worker"] for event in events(run)[-20:] if event["kind"] == "evaluated"}
            assert len(workers) == 2
            second.vanish()
            until(lambda: reaches(1), PATIENCE, lambda: driver.said)
            at = evaluated(run)
            until(lambda: evaluated(run) > at + 8, PATIENCE, lambda: driver.said)
    assert "its node was lost" in driver.said


def parent(pid: int) -> int:
    """Of a process the one that started it; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return 0


def is_lost(driver: Driver) -> bool:
    """Whether the cluster is lost; if not, Ray's own agents on its node are killed, so that it ends itself."""
    if "the cluster is lost" not in driver.said:
        # Their title may lie where their environment was; their parent is the node's own process.
        nodes = driver.processes("raylet/raylet")
        for pid in processes("", "ray::DashboardAgent"):
            if parent(pid) in nodes:
                kill(pid)
        return False
    return True


@pytest.mark.parametrize("whose", ["ours", "ours, its node", "at an address"])
def test_a_lost_head_is_waited_for(whose: str, tmp_path: Path) -> None:
    """One that the search started is started anew, also when its node ended because one of Ray's own agents did; one at
    an address is found again where it was, though it was away while nobody looked.
    """
    run = tmp_path / "RUN"
    ours, budget = whose != "at an address", {"evaluations": 120 if whose == "ours, its node" else 40}
    options = {"kind": "ray", "workers": 2} | ({"address": "local"} if ours else {})
    spec = write_run(tmp_path, executor=options, budget=budget)
    with Nodes() as nodes:
        around = {"RAY_ADDRESS": nodes.address}  # Where nobody is, if we start our own.
        head = None if ours else nodes.start(2)
        around |= {} if ours else AUTH
        with driving(tmp_path, "search", spec, run, seconds=0.4, **around) as driver:
            until(lambda: evaluated(run) > 3, PATIENCE, lambda: driver.said)
            if head is not None:
                driver.process.send_signal(signal.SIGSTOP)
            if whose == "ours, its node":
                until(lambda: is_lost(driver), PATIENCE, lambda: driver.said)
            else:
                servers = (driver if head is None else head).processes("gcs_server")
                assert sum(kill(pid) for pid in servers) == 1
            if head is not None:
                head.lose()
                nodes.start(2)
                driver.process.send_signal(signal.SIGCONT)
            driver.ends(0, 2 * PATIENCE)
    assert "the cluster is there again" in driver.said
    *before, last = [event["what"] for event in events(run) if event["kind"] == "incident"]
    assert last == "the cluster was lost"
    assert not before or whose != "ours", "workers that were lost with it are none of their own"
    assert content(run) == undisturbed(tmp_path, budget=budget)
