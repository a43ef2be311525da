"""Damage what evomerge reads, at random, and see that nothing goes wrong without a word.

    scripts/fuzz [--trials N] [--seconds S] [--seed K] [--scene NAME] [--only NUMBER --keep FOLDER]

Each trial damages one file of a small tree (run folders, models, tasks, a run file, a recipe, a mergekit
configuration) and runs one command on it. Wrong is a traceback, more than 10 s of computing or 2 GB of memory, an exit
status that is not 0, 1 or 2, a refusal that is not one line, and another number than the undamaged tree gives with
nothing said. Exit status 1 if anything was wrong. A trial depends on the seed and its number alone.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from child import Outcome, run
from mutations import damage
from scenes import SCENES, Scene, copied, expected, prepare


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scene", choices=[scene.name for scene in SCENES], help="this kind of trial alone")
    parser.add_argument("--only", type=int, help="the trial of this number alone")
    parser.add_argument("--keep", type=Path, help="a new folder, where the tree of --only is left")
    wanted = parser.parse_args()
    _import_everything()
    with tempfile.TemporaryDirectory() as temporary:
        return judge(Path(temporary), wanted)


def judge(folder: Path, wanted: argparse.Namespace) -> int:
    """Prepare a tree, damage copies of it, say what went wrong."""
    # Runs know where their models and tasks lie: every copy of the tree takes its place.
    place, tree = folder / "tree", folder / "whole"
    place.mkdir()
    prepare(place)
    place.rename(tree)
    whole = expected(tree, place)
    started = time.monotonic()
    ends: Counter[str] = Counter()
    faults = 0
    numbers = range(wanted.trials) if wanted.only is None else [wanted.only]
    for number in numbers:
        if time.monotonic() - started > wanted.seconds:
            break
        said, end = trial(number, wanted, copied(tree, place), whole)
        ends[end.partition(" (")[0]] += 1
        if end.startswith("WRONG") or wanted.only is not None:
            faults += end.startswith("WRONG")
            print(f"{number}: {said}: {end}", flush=True)
        if wanted.keep is not None:
            shutil.copytree(place, wanted.keep)
        shutil.rmtree(place)
    print(f"{ends.total()} trials, {faults} wrong, {time.monotonic() - started:.0f} s")
    for end, count in sorted(ends.items()):
        print(f"  {count:5} {end}")
    return int(faults > 0)


def trial(number: int, wanted: argparse.Namespace, folder: Path, whole: dict[str, Any]) -> tuple[str, str]:
    """Damage a tree and run a command on it: what was done, in words, and how it ended."""
    rng = random.Random(f"{wanted.seed}/{number}")
    scene = rng.choices(SCENES, [scene.share for scene in SCENES])[0]
    if wanted.scene is not None:
        scene = next(each for each in SCENES if each.name == wanted.scene)
    file = rng.choice(scene.files)
    said = f"{scene.name}: {file}: {damage(folder / file, rng)}"
    outcome = run(scene.command, folder)
    return said, _end(scene, folder, outcome, whole[scene.name])


def _end(scene: Scene, folder: Path, outcome: Outcome, whole: Any) -> str:
    """How a trial ended, in words that begin with WRONG if it must not end so."""
    last = outcome.err.rstrip("\n").split("\n")[-1]
    if outcome.fault:
        return f"WRONG {outcome.fault} ({last[:300]})"
    if outcome.status:
        return f"refused, exit status {outcome.status} ({last[:300]})"
    if scene.result is None:
        return "taken"
    try:
        same = scene.result(folder) == whole
    except (OSError, ValueError) as error:
        return f"WRONG no result, exit status 0 ({error})"
    if same:
        return "unharmed"
    return f"repaired, and said ({last[:300]})" if "dropped" in outcome.out + outcome.err else "WRONG another result"


def _import_everything() -> None:
    """Load now what every trial needs, so that a trial is a fork."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import evomerge.assemble
    import evomerge.cli
    import evomerge.evaluate
    import evomerge.export
    import evomerge.plan
    import evomerge.terminal  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
