"""Searches on a real model: SmolLM2-135M, everything out of packages.

    scripts/example_smollm [merge] [--out DIR]     a merge of two experts trained here: half an hour on two CPU cores
    scripts/example_smollm prune [--out DIR]       which of its layers to leave out: twenty minutes

What is done already is not done again, so a killed example goes on where it was. docs/smollm.md tells what came of it.
"""

import argparse
import os
from pathlib import Path

from merging import merge_story
from pruning import prune_story

STORIES = {"merge": merge_story, "prune": prune_story}


def main() -> None:
    """Tell the story that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("story", nargs="?", choices=STORIES, default="merge", help="merge, if left out")
    parser.add_argument("--out", type=Path, default=Path("example-smollm"), help="the folder for all of it")
    arguments = parser.parse_args()
    out: Path = arguments.out
    (out / "models").mkdir(parents=True, exist_ok=True)
    # Threads that wait for each other by spinning take the cores from whatever else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    STORIES[arguments.story](out)


if __name__ == "__main__":
    main()
