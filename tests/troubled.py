"""A cheap scorer that workers can import, and that runs into whatever trouble a file in its folder asks for.

`once.KIND` befalls the first worker that sees it, `poison.KIND` every worker that meets the model that the first one
was scoring when it saw the file.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
LIMIT = 100 << 20
"""Bytes of a real memory limit; whoever meets it takes three times as many."""


@dataclass(frozen=True)
class Troubled:
    """Marks are made of a norm of the weights, so that models differ and no forward pass is needed."""

    folder: str
    seconds: float = 0.0
    items: Mapping[str, Sequence[str]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", {"norms": [str(i) for i in range(48)]})

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        size = float(sum(p.float().square().sum() for name, p in model.named_parameters() if "mlp.up" in name)) ** 0.5
        wanted = items["norms"]
        time.sleep(self.seconds)
        for path in sorted(Path(self.folder).iterdir()):
            occasion, _, kind = path.name.partition(".")
            if occasion in OCCASIONS and OCCASIONS[occasion](path, repr(size)) and KINDS[kind]() == "nan":
                return {"norms": {label: [float("nan") for _ in wanted] for label in "ab"}}
        return {"norms": {label: [(size * (i + int(k))) % 1 for k in wanted] for i, label in enumerate("ab")}}


def _is_first(path: Path, model: str) -> bool:
    try:
        path.rename(path.with_name(f"met-{path.name}"))
    except FileNotFoundError:
        return False
    return True


def _is_poisoned(path: Path, model: str) -> bool:
    victim, draft = path.with_name(f"victim-{path.name}"), path.with_name(f"draft-{os.getpid()}")
    draft.write_text(model)
    try:
        os.link(draft, victim)  # Whole, or not at all.
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return victim.read_text() == model


OCCASIONS: dict[str, Callable[[Path, str], bool]] = {"once": _is_first, "poison": _is_poisoned}


def memory_group(name: str) -> Path:
    """A control group of its own with a memory limit.

    Raises:
        OSError: this machine does not let us make one.
    """
    first = CGROUPS / "memory"
    folder, limit = (first, "memory.limit_in_bytes") if first.is_dir() else (CGROUPS, "memory.max")
    group = folder / f"evomerge-{name}"
    group.mkdir()
    (group / limit).write_text(str(LIMIT))
    return group


def _take_too_much() -> None:
    group = memory_group(str(os.getpid()))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    bytearray(3 * LIMIT)
    time.sleep(1e6)


def _lack_memory() -> None:
    raise MemoryError("there is none")


KINDS: dict[str, Callable[[], object]] = {
    "hang": lambda: time.sleep(1e6),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(1),
    "memory": _lack_memory,
    "limit": _take_too_much,
    "nan": lambda: "nan",
}
