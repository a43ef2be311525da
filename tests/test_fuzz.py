"""A short part of `scripts/fuzz`: damaged files are refused in one line, or change no number."""

import subprocess
import sys

from conftest import ROOT


def test_damaged_files_are_refused_or_change_no_number() -> None:
    command = [sys.executable, ROOT / "scripts/fuzzing/fuzz.py", "--trials", "80", "--seconds", "20", "--seed", "1"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " 0 wrong" in found.stdout
