"""Jobs run here by stand-ins for Slurm's commands: what they were called with, and that nothing of them is left."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ROOT
from processes import kill, processes, without

STUBS = Path(__file__).parent / "stubs"
SCRIPT = ROOT / "scripts/cluster/slurm.sbatch"


@dataclass
class Cluster:
    """A folder to submit jobs from, and stand-ins on the PATH for what is not to be had here."""

    folder: Path
    stubs: tuple[str, ...] = ("sbatch", "srun", "scontrol", "ray", "evomerge")
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.job = self.folder / "job"
        self.notes = self.folder / "notes"
        self.bin = self.folder / "bin"
        for folder in (self.job, self.notes, self.bin):
            folder.mkdir()
        for name in self.stubs:
            (self.bin / name).symlink_to(STUBS / name)
        self.mark = f"CLUSTER_MARK={self.folder}"
        self.number = str(10_000_000 + os.getpid() * 100 + int(time.time()) % 100)

    def environment(self) -> dict[str, str]:
        """What a job sees: nothing of Ray's or Slurm's that this process may have, and a home of its own."""
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "HOME": str(self.folder), "STUBS": str(self.notes), "CLUSTER_MARK": str(self.folder)}
        own |= {"SLURM_JOB_ID": self.number, "HEAD_IP": "127.0.0.1"}
        return without("RAY_", "SLURM", "SBATCH", "SRUN") | own | self.settings

    def submit(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a job, its output appended to a file in its folder."""
        with (self.job / "evomerge.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.job, env=self.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def calls(self, first: str = "") -> list[str]:
        """What the stand-ins were called with."""
        path = self.notes / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(first)] if path.exists() else []

    def tokens(self) -> list[tuple[str, str, str]]:
        """Who was given which token: role, mode, token."""
        lines = (self.notes / "tokens").read_text().splitlines()
        return [(role, mode, token) for role, mode, token in map(str.split, lines)]

    def close(self) -> list[int]:
        """End whatever is left of it, and say what that was."""
        left = list(processes(self.mark))
        for pid in left:
            kill(pid)
        return left
