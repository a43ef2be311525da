"""Marks of every case and family beside those of lm-eval's `simple_evaluate`.

    scripts/differential [--families A,B] [--cases A,B] [--documents N]

Every combination must be equal, item by item, or refused by both. Exit status 1 if one is not.
"""

import argparse
import collections
import contextlib
import io
import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from differential import CASES, compare, prepare  # type: ignore[import-not-found]  # In tests, which are not typed.
from families import FAMILIES, MORE  # type: ignore[import-not-found]

FINE = ("equal", "refused by both")


def main() -> None:
    """Try all that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join((*FAMILIES, *MORE)))
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--documents", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    started, outcomes = time.monotonic(), collections.Counter[str]()
    folder = prepare(Path(tempfile.mkdtemp()), arguments.documents)
    wanted = [case for case in CASES if case.name in arguments.cases.split(",")]
    for family in arguments.families.split(","):
        for case in wanted:
            with contextlib.redirect_stderr(io.StringIO()):
                found = compare(family, case, folder)
            outcomes[found.outcome] += 1
            if found.outcome not in FINE or found.notes:
                print(f"{family}, {case.name}: {found.outcome}", *found.notes, *found.differences[:3], sep="\n    ")
                print(*(f"    {said}" for said in (found.ours, found.theirs) if said), sep="\n", flush=True)
    print(f"{sum(outcomes.values())} combinations in {time.monotonic() - started:.0f} s:", dict(outcomes))
    sys.exit(any(outcome not in FINE for outcome in outcomes))


if __name__ == "__main__":
    main()
