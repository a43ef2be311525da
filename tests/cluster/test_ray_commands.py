"""What the pages say to do with Ray, done: `ray up` with stand-ins for ssh, jobs on a cluster of one machine."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster.jobs import Cluster
from conftest import ROOT
from processes import processes, until

CLUSTER = ROOT / "scripts/cluster/cluster.yaml"
TOKEN = "5eed" * 16


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Cluster]:
    """This machine, with the stand-in for evomerge and a temporary folder of Ray's short enough for its sockets."""
    cluster = Cluster(tmp_path, stubs=("evomerge",))
    temporary = Path(f"/tmp/evomerge-{os.getpid()}")
    temporary.mkdir(mode=0o700)
    cluster.settings |= {"RAY_TMPDIR": str(temporary), "RAY_USAGE_STATS_ENABLED": "0"}
    yield cluster
    cluster.close()
    shutil.rmtree(temporary)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/cluster" / page).read_text(), re.DOTALL | re.MULTILINE)


def test_ray_accepts_the_cluster_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(config)
    assert config["max_workers"] == 2
    (head,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "ray start" in line]
    for line in (head, worker):
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/dev/shm/evomerge-ray-token" in line
        assert "RAY_AUTH_TOKEN=" not in line, "commands are logged"
    assert "--dashboard-host=127.0.0.1" in head


def test_ray_up_hands_over_the_token_as_a_file_and_nothing_else(machine: Cluster) -> None:
    """Up to the commands that would go through ssh; nothing is started."""
    for name in ("ssh", "rsync"):
        (machine.bin / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"$STUBS/calls"\n')
        (machine.bin / name).chmod(0o755)
    token = machine.folder / "token"
    token.write_text(TOKEN)
    key = machine.folder / "key"
    key.touch()
    text = CLUSTER.read_text().replace("/dev/shm/evomerge-ray-token\n\n", f"{token}\n\n")
    for number, name in enumerate(("head", "gpu1", "gpu2"), start=2):
        text = text.replace(f"{name}.example.org", f"127.0.0.{number}")
    text = re.sub("ssh_private_key: [^ ]+", f"ssh_private_key: {key}", text)
    (machine.job / "cluster.yaml").write_text(text)
    (command,) = [line for line in blocks("ray-up.md")[0].splitlines() if line.startswith("ray up ")]
    command = command.replace("scripts/cluster/cluster.yaml", "cluster.yaml --yes --no-config-cache")
    before = set(Path("/tmp").glob("ray_ssh_*"))
    assert typed(machine, command) == 0, (machine.job / "evomerge.log").read_text()
    for folder in set(Path("/tmp").glob("ray_ssh_*")) - before:
        shutil.rmtree(folder)
    (copied,) = [call for call in machine.calls("rsync") if str(token) in call]
    assert copied.endswith(f"{token} evomerge@127.0.0.2:/dev/shm/evomerge-ray-token")
    (started,) = [call for call in machine.calls("ssh") if "ray start" in call]
    assert "--dashboard-host=127.0.0.1" in started
    everything = "\n".join(machine.calls()) + (machine.job / "evomerge.log").read_text()
    assert TOKEN not in everything


@pytest.fixture
def jobs(machine: Cluster) -> Iterator[Cluster]:
    """The same with the job server of the page on jobs, on the loopback, with ports of its own."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("the job server is not installed: pip install -e '.[cluster]'")
    start, use = blocks("ray-job.md")
    port = 20000 + os.getpid() % 10000
    machine.settings |= exported(start, machine) | {"PACE": "2"}
    machine.settings |= exported(use.replace("8265", str(port)), machine)
    (line,) = [line for line in start.splitlines() if line.startswith("ray start")]
    own = f" --block --node-ip-address=127.0.0.1 --port={port + 10000} --dashboard-port={port} --num-cpus=1"
    own += f" --dashboard-agent-listen-port={port + 20000}"
    head = machine.submit("env", "-u", "RAY_ADDRESS", *line.split(), *own.split())
    try:
        until(lambda: typed(machine, "ray job list") == 0, 60)
        yield machine
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
    until(lambda: not processes(machine.mark))


def test_a_search_is_submitted_stopped_and_gone_on_with(jobs: Cluster) -> None:
    """The commands of the page; stopping sends a SIGTERM and waits, and the token is told to nobody."""
    (jobs.job / "run.yaml").write_text("seed: 7\n")
    lines = blocks("ray-job.md")[1].replace("\\\n", " ").splitlines()
    (submit,) = [line for line in lines if line.startswith("ray job submit")]
    journal = jobs.job / "RUN/journal.jsonl"
    until(lambda: typed(jobs, submit) == 0)  # Once the agent is there that starts jobs.
    until(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 2)
    for command in ("ray job status merge", "ray job stop merge", "ray job logs merge"):
        assert command in lines
        assert typed(jobs, command) == 0
    assert "stopped after 1" in (jobs.job / "evomerge.log").read_text()
    assert len(journal.read_text().splitlines()) < 8
    again = submit.replace("--submission-id merge", "--submission-id again").replace("--no-wait ", "")
    assert typed(jobs, again) == 0
    assert len(journal.read_text().splitlines()) == 8
    token = jobs.settings["RAY_AUTH_TOKEN"]
    assert {seen for _, _, seen in jobs.tokens()} == {token}
    for folder in (jobs.job, Path(jobs.settings["RAY_TMPDIR"])):
        assert subprocess.run(["grep", "-rl", token, folder], capture_output=True).stdout == b""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{jobs.settings['RAY_ADDRESS']}/api/jobs/")


def typed(machine: Cluster, command: str) -> int:
    return machine.submit("bash", "-c", command).wait(60)


def exported(block: str, machine: Cluster) -> dict[str, str]:
    """The variables that a block of a page exports."""
    lines = "\n".join(line for line in block.splitlines() if line.startswith("export "))
    names = re.findall(r"(RAY_\w+)=", lines)
    script = lines + "\n" + "\n".join(f'printf "%s\\n" "${name}"' for name in names)
    values = subprocess.run(
        ["bash", "-c", script], env=machine.environment(), capture_output=True, text=True, check=True
    )
    return dict(zip(names, values.stdout.splitlines(), strict=True))
