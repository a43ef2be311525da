"""Searches on clusters whose workers, nodes and head are killed under them."""

import random
import time
from pathlib import Path

from conftest import content, events
from processes import TOKEN, Nodes, driving, evaluated, kill, until, write_run


def test_a_search_whose_workers_are_killed_all_the_time_is_the_same(tmp_path: Path) -> None:
    """Twenty of them on two nodes, of which one is lost and replaced."""
    rng = random.Random(1)
    options = {"kind": "ray", "deaths": 10}
    spec = write_run(tmp_path, executor=options, budget={"evaluations": 160})
    with Nodes() as nodes:
        nodes.start(1)
        second = nodes.start(1)
        arguments = ("search", spec, tmp_path / "RUN")
        around = {"RAY_ADDRESS": nodes.address, "RAY_AUTH_TOKEN": TOKEN}
        with driving(tmp_path, *arguments, seconds=0.2, **around) as driver:
            until(lambda: evaluated(tmp_path / "RUN") > 3, 90, lambda: driver.said)
            killed = 0
            while killed < 20:
                assert driver.process.poll() is None, driver.said
                time.sleep(rng.uniform(0.2, 1.5))
                workers = [pid for node in nodes.nodes for pid in node.processes("ray::Worker")]
                killed += kill(rng.choice(workers)) if workers else 0
                if killed == 8 and second.process.poll() is None:
                    second.lose()
                    nodes.start(1)
            assert driver.process.poll() is None, "all kills hit the search"
            print(driver.ends(0, 240))
    undisturbed = write_run(tmp_path, executor="inline", budget={"evaluations": 160})
    with driving(tmp_path, "search", undisturbed, tmp_path / "alone") as driver:
        driver.ends(0, 60)
    for event in events(tmp_path / "RUN"):
        if event["kind"] in ("incident",):
            print(event)
    assert content(tmp_path / "RUN") == content(tmp_path / "alone")
