"""Fixtures that many tests share: the demo's models, tiny models of many families, a command line to type into."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# By default Ray's workers give way to whoever computes, here to other tests, until nothing is left for them.
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray reads its token once in a process, for good.
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

ROOT = Path(__file__).resolve().parent.parent
DEMO_MODELS = ROOT / "evomerge/demo/models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: "execute" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["EVOMERGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """What is written by tests outlives kills without being forced to a disk, which takes longer than the searches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class Typed:
    """What came of a command line."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    """Types a command line, as a user does, into this process."""
    from evomerge.cli import main

    def run(*arguments: object) -> Typed:
        monkeypatch.setattr(sys, "argv", ["evomerge", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Typed(status, captured.out, captured.err)

    return run


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run file over the demo's models; keyword arguments replace its keys."""

    def write(name: str = "run.yaml", **changes: object) -> Path:
        plain: dict[str, object] = {
            "models": {
                "base": str(DEMO_MODELS / "base"),
                "experts": {"maths": str(DEMO_MODELS / "maths"), "japanese": str(DEMO_MODELS / "japanese")},
            },
            "space": "model-wide",
            "fitness": small_fitness(),
            "budget": {"evaluations": 14},
            "seed": 3,
        }
        plain |= changes
        path = tmp_path / name
        path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        return path

    return write


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["event"] for line in (run / "journal.jsonl").read_text().splitlines()]


def story(run: Path) -> list[dict[str, Any]]:
    """Events of the search alone, without times and workers."""
    others = ("created", "opened", "closed", "extended", "incident")
    kept = [event for event in events(run) if event["kind"] not in others]
    passing = ("at", "elapsed", "seconds", "layer_evaluations", "worker")
    return [{k: v for k, v in event.items() if k not in passing} for event in kept]


def content(run: Path) -> dict[str, Any]:
    """What a search proposed, scored and believed, whatever the order in which workers came back."""
    from evomerge.store import RunStore

    store = RunStore(run)
    found: dict[str, Any] = {"asked": {}, "assigned": {}, "evaluated": {}, "told": [], "confirmed": []}
    for event in store.events():
        plain = event.to_plain()
        if event.kind == "evaluated":
            assert event.work not in found["evaluated"], f"work {event.work} came back twice"
            found["evaluated"][event.work] = (store.marks(event), store.scores(event), event.failure)
        elif event.kind in ("asked", "assigned"):
            key = event.number if event.kind == "asked" else event.work
            assert key not in found[event.kind], f"{event.kind} {key} twice"
            found[event.kind][key] = plain
        elif event.kind in ("told", "confirmed"):
            found[event.kind].append({key: value for key, value in plain.items() if key not in ("at", "elapsed")})
    store.close()
    return found


def small_fitness(*tasks: str, search: int = 16, confirm: int = 24) -> dict[str, object]:
    """The demo's tasks with few items."""
    return {
        "include": [str(ROOT / "fitness/demo")],
        "objectives": {task: {"task": task, "metric": "acc"} for task in tasks or ("math_ja",)},
        "items": {"search": search, "confirm": confirm, "group": "group"},
        "estimator": {"items": 8},
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Two finished runs to read from, never to write to: `one` objective (cma, with scores) and `two` (nsga2)."""
    from evomerge.assemble import search
    from evomerge.spec import load_run

    folder = tmp_path_factory.mktemp("finished")
    runs = {}
    for name, tasks in (("one", ("math_ja",)), ("two", ("math_ja", "lists"))):
        experts = ("maths", "japanese", "lists")[: 2 if name == "one" else 3]
        plain = {
            "models": {"base": str(DEMO_MODELS / "base"), "experts": {e: str(DEMO_MODELS / e) for e in experts}},
            "space": "per-layer",
            "fitness": small_fitness(*tasks, search=24, confirm=48),
            "budget": {"evaluations": 40},
            "seed": 5,
        }
        plain |= {
            "optimizer": {"kind": "cma", "told": "loss"} if name == "one" else {"kind": "nsga2", "told": "metric"}
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        search(load_run(path), folder / name)
        runs[name] = folder / name
    yield runs
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def copy_of_run(finished: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of a finished run, to be damaged or gone on with."""

    def copy(name: str) -> Path:
        target = tmp_path / f"copy-{name}"
        shutil.copytree(finished[name], target)
        return target

    return copy


def refused(found: Typed, *words: str) -> None:
    assert found.status == 2, found
    complaint = [line for line in found.err.splitlines() if line.startswith("evomerge: ")]
    assert len(complaint) == 1, found.err
    assert "Traceback" not in found.err + found.out
    for word in words:
        assert word in complaint[0], f"{word!r} is not in {complaint[0]!r}"


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    plain = yaml.safe_load(path.read_text())
    change(plain)
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path
