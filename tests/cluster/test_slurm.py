"""The sbatch script, really run, with stand-ins for Slurm: who gets the token, what becomes of a stopped job."""

import hashlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.jobs import SCRIPT, Cluster
from conftest import ROOT
from processes import processes, until

RUN = ("--nodes=2", "--gpus-per-node=4", str(SCRIPT), "run.yaml", "RUN")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    (cluster.job / "run.yaml").write_text("seed: 7\n")
    yield cluster
    assert cluster.close() == [], "processes were left behind"
    assert not list(Path("/tmp").glob(f"ray*-{cluster.number}-*"))


def journal(cluster: Cluster) -> list[str]:
    path = cluster.job / "RUN/journal.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_a_job_that_finishes_is_not_requeued(slurm: Cluster) -> None:
    job = slurm.submit("sbatch", *RUN)
    assert job.wait(60) == 0
    assert len(journal(slurm)) == 8
    assert slurm.calls("scontrol") == []
    (driver,) = slurm.calls("evomerge")
    assert re.fullmatch(
        r"evomerge search run.yaml --out RUN --executor ray --address 127.0.0.1:\d+ --workers 8 --resume", driver
    )
    starts = slurm.calls("ray start")
    assert len(starts) == 2
    address = driver.split("--address ")[1].split()[0]
    assert f"--head --include-dashboard=false --node-ip-address=127.0.0.1 --port={address.split(':')[1]}" in starts[0]
    assert f"--address={address}" in starts[1]
    ended = [call for call in slurm.calls() if call.endswith(" ended")]
    assert ended == ["node ended", "head ended"], "the head leaves last"


def test_the_token_is_in_the_environment_and_nowhere_else(slurm: Cluster) -> None:
    assert slurm.submit("sbatch", *RUN).wait(60) == 0
    given = slurm.tokens()
    assert sorted(role for role, _, _ in given) == ["driver", "head", "node"]
    assert {mode for _, mode, _ in given} == {"token"}
    (token,) = {token for _, _, token in given}
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert (slurm.notes / "calls").read_text().count(token) == 0, "arguments can be read by everybody on a node"
    for path in slurm.folder.rglob("*"):
        if path.is_file() and path.parent != slurm.notes:
            assert token not in path.read_text(errors="ignore"), path
    assert slurm.submit("sbatch", *RUN).wait(60) == 0
    assert len({token for _, _, token in slurm.tokens()}) == 2, "every start has a token of its own"


def test_the_warning_stops_the_driver_and_the_job_comes_back(slurm: Cluster) -> None:
    job = slurm.submit("sbatch", *RUN)
    until(lambda: len(journal(slurm)) >= 2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    done = journal(slurm)
    assert 2 <= len(done) < 8
    assert "stopped after 1" in (slurm.job / "evomerge.log").read_text()
    assert slurm.calls("scontrol") == [f"scontrol requeue {slurm.number}"]
    slurm.settings["SLURM_RESTART_COUNT"] = "1"
    assert slurm.submit("sbatch", *RUN).wait(60) == 0
    assert len(journal(slurm)) == 8
    assert journal(slurm)[: len(done)] == done, "the second start goes on"
    assert len(slurm.calls("scontrol")) == 1, "a search that has finished is not requeued"
    first, second = slurm.calls("evomerge")
    assert first == second


@pytest.mark.parametrize("signals", [2, 99])
def test_a_driver_that_takes_too_long_is_stopped_within_the_grace(slurm: Cluster, signals: int) -> None:
    """The second signal does not wait for candidates; a driver that heeds none is killed, and goes on all the same."""
    slurm.settings["EVOMERGE_GRACE"] = "6"
    (slurm.job / "run.yaml").write_text(f"signals before it stops: {signals}\n")
    job = slurm.submit("sbatch", *RUN)
    until(lambda: len(journal(slurm)) >= 1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    assert ("stopped after 2" in (slurm.job / "evomerge.log").read_text()) == (signals == 2)
    assert slurm.calls("scontrol") == [f"scontrol requeue {slurm.number}"]


def test_a_warning_before_the_search_has_begun_requeues(slurm: Cluster) -> None:
    (slurm.bin / "ray").unlink()
    (slurm.bin / "ray").write_text('#!/bin/sh\n[ "$1" = start ] && exec sleep 60\ntouch "$STUBS/asked"; exit 1\n')
    (slurm.bin / "ray").chmod(0o755)
    job = slurm.submit("sbatch", *RUN)
    until((slurm.notes / "asked").exists)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    assert slurm.calls("evomerge") == []
    assert slurm.calls("scontrol") == [f"scontrol requeue {slurm.number}"]


def test_a_cancelled_job_stops_and_does_not_come_back(slurm: Cluster) -> None:
    job = slurm.submit("sbatch", *RUN)
    until(lambda: len(journal(slurm)) >= 1)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 130
    assert slurm.calls("scontrol") == []
    assert "the same sbatch command goes on" in (slurm.job / "evomerge.log").read_text()


@pytest.mark.parametrize("status", [1, 2])
def test_a_wrong_input_or_a_failed_run_is_not_requeued(slurm: Cluster, status: int) -> None:
    (slurm.job / "run.yaml").write_text(f"status: {status}\n")
    assert slurm.submit("sbatch", *RUN).wait(60) == status
    assert slurm.calls("scontrol") == []
    assert f"evomerge ended with status {status}; not requeued" in (slurm.job / "evomerge.log").read_text()


def test_where_requeueing_is_forbidden_the_log_says_how_to_go_on(slurm: Cluster) -> None:
    slurm.settings["SCONTROL_STATUS"] = "1"
    job = slurm.submit("sbatch", *RUN)
    until(lambda: len(journal(slurm)) >= 1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 130
    assert "the same sbatch command goes on" in (slurm.job / "evomerge.log").read_text()


def test_one_node_needs_no_others(slurm: Cluster) -> None:
    assert slurm.submit("sbatch", "--nodes=1", str(SCRIPT), "run.yaml", "RUN").wait(60) == 0
    assert len(slurm.calls("ray start")) == 1
    assert "--workers 1 " in slurm.calls("evomerge")[0]


def test_ray_itself_takes_the_token_from_the_environment(tmp_path: Path) -> None:
    """Two nodes of the real Ray on this machine: both join, tasks run, and without the token nobody gets in."""
    slurm = Cluster(tmp_path, stubs=("sbatch", "srun", "scontrol"))
    (slurm.bin / "evomerge").write_text(f"#!{sys.executable}\n" + DRIVER)
    (slurm.bin / "evomerge").chmod(0o755)
    (slurm.job / "run.yaml").write_text("seed: 7\n")
    try:
        job = slurm.submit("sbatch", "--nodes=2", str(SCRIPT), "run.yaml", "RUN")
        status = job.wait(85)
        log = (slurm.job / "evomerge.log").read_text()
        assert status == 0, log
        (digest,) = re.findall(r"^token ([0-9a-f]{64})$", log, flags=re.MULTILINE)
        assert "2 nodes" in log
        assert "without the token: AuthenticationError" in log
        words = {word for path in slurm.folder.rglob("*") if path.is_file() for word in hexadecimal(path)}
        assert digest not in {hashlib.sha256(word.encode()).hexdigest() for word in words}, "the token is in a file"
        assert not list(Path("/tmp").glob(f"ray*-{slurm.number}-*"))
        until(lambda: not processes(slurm.mark))
    finally:
        slurm.close()
        subprocess.run(["rm", "-rf", *map(str, Path("/tmp").glob(f"ray*-{slurm.number}-*"))], check=True)


def hexadecimal(path: Path) -> list[str]:
    return re.findall(r"[0-9a-f]{64}", path.read_text(errors="ignore"))


DRIVER = """
import hashlib, os, re, subprocess, sys, time
from pathlib import Path

import ray

address = sys.argv[sys.argv.index("--address") + 1]
ray.init(address=address, log_to_driver=False)
end = time.monotonic() + 60
while len([node for node in ray.nodes() if node["Alive"]]) < 2 and time.monotonic() < end:
    time.sleep(0.3)
print(len(ray.nodes()), "nodes")


@ray.remote(num_cpus=1)
def seen():
    time.sleep(0.5)
    return hashlib.sha256(os.environ["RAY_AUTH_TOKEN"].encode()).hexdigest()


for digest in set(ray.get([seen.remote() for _ in range(2)])):
    print("token", digest)
for folder in Path("/tmp").glob(f"ray*-{os.environ['SLURM_JOB_ID']}-*"):
    for path in folder.rglob("*"):
        if path.is_file() and os.environ["RAY_AUTH_TOKEN"].encode() in path.read_bytes():
            sys.exit(f"the token is in {path}")
bare = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
code = f"import ray; ray.init(address={address!r})"
found = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True)
print("without the token:", *re.findall(r"AuthenticationError", found.stderr)[:1])
"""


def test_the_page_on_slurm_says_what_works(slurm: Cluster) -> None:
    """Its commands, with the stand-ins, in a folder that looks like a checkout."""
    (slurm.job / "scripts").symlink_to(ROOT / "scripts")
    page = (ROOT / "docs/cluster/slurm.md").read_text()
    submit = [line for line in page.splitlines() if line.startswith("sbatch ")]
    assert submit
    for line in submit:
        assert slurm.submit("bash", "-c", line.split("#")[0]).wait(60) == 0
    assert len(journal(slurm)) == 8
