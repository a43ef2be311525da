"""Benchmarks: the merge kernels, one candidate against what today's tools do, the start of the command line.

    scripts/bench [operators] [candidate] [start] [grains] [prefix] [demo] [policies] [estimators] [clock] [ray]
                  [gradient] [ranking] [learned] [few] [search]

Times are CPU seconds of one thread, rounds of the competitors interleaved, medians; what is quoted are ratios within
one run, since machines are noisy. Left out unless they are named: `prefix`, layers that candidates share run once,
`demo`, five seeds of the demo's two searches, `policies`, five seeds of the default estimator against the mean on fixed
items, `estimators`, some 300 searches on simulated models, `clock`, searches with many workers, by a simulated clock,
`ray`, what a work costs there beside itself, and what stays behind of 2,000 of them, `gradient`, slopes of losses
beside forward passes, `ranking`, how well what is told ranks candidates, by estimators and yardsticks, `learned`, five
seeds of coefficients learned on the demo, `few`, the same from few items beside fine-tuning on them (hours), and
`search`, optimisers on zoos whose best merge is known.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from candidate import bench_candidate
from clock import bench_clock
from estimators import bench_estimators
from few import bench_few
from gradient import bench_gradient
from grains import bench_grains
from learned import bench_learned
from measure import demo_run, table
from operators import bench_operators
from policies import bench_policies
from prefix import bench_prefix
from ranking import bench_ranking
from rays import bench_ray
from search import OPTIMIZERS, ZOOS, bench_search

from evomerge.assemble import search


def bench_start() -> None:
    """`evomerge --help` in a fresh process, files in the page cache."""
    walls = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evomerge", "--help"], check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
    table("start", [("evomerge --help, median wall seconds", statistics.median(walls))])


def bench_demo() -> None:
    """Five seeds of the demo's two searches: gains over what needs no search, on held-out items."""
    head = ("seed", "best", "minus parent", "minus fixed", "fixed", "front HV", "fixed HV", "s")
    rows: list[Sequence[object]] = [head]
    gains = []
    for seed in (1, 2, 3, 4, 5):
        with tempfile.TemporaryDirectory() as temporary:
            gain, row = _one_demo(Path(temporary), seed)
        gains.append(gain)
        rows.append(row)
        print(*row, flush=True)
    table(f"demo: five seeds, mean gain over the best fixed recipe {statistics.mean(gains):.3f}", rows)


def _one_demo(folder: Path, seed: int) -> tuple[float, Sequence[object]]:
    """The gain of one seed, and its line in the table."""
    started = time.perf_counter()
    one = search(demo_run(folder, "demo-maths", "cma", 300, seed), folder / "one")
    two = search(demo_run(folder, "demo", "nsga2", 300, seed), folder / "two")
    seconds = time.perf_counter() - started
    best, volumes = one.best, two.hypervolumes()
    assert best is not None and best.confirmed is not None and volumes is not None, "both searches have finished"
    label = one.objectives[0]
    (_, parent), (rival, fixed) = one.best_parent(best)[label], one.best_fixed(best)[label]
    pairs = [f"{value:.3f} ±{error:.3f}" for value, error in (best.confirmed[label], parent, fixed)]
    return fixed[0], (seed, *pairs, rival, volumes["front"], volumes["fixed"], round(seconds))


BENCHMARKS = {
    "operators": bench_operators,
    "candidate": bench_candidate,
    "start": bench_start,
    "grains": bench_grains,
    "prefix": bench_prefix,
    "demo": bench_demo,
    "policies": bench_policies,
    "estimators": bench_estimators,
    "clock": bench_clock,
    "ray": bench_ray,
    "gradient": bench_gradient,
    "ranking": bench_ranking,
    "learned": bench_learned,
    "few": bench_few,
    "search": bench_search,
}
LONG = ("prefix", "demo", "policies", "estimators", "clock", "ray", "gradient", "ranking", "learned", "few", "search")


def main() -> None:
    """Run what is named, or all but the long ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all but the long ones if none")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="of search: this one alone")
    parser.add_argument("--zoos", choices=ZOOS, help="of search: those of this kind alone")
    wanted = parser.parse_args()
    names = wanted.names or [name for name in BENCHMARKS if name not in LONG]
    torch.set_num_threads(1)
    for name in names:
        bench_search(wanted.optimizer, wanted.zoos) if name == "search" else BENCHMARKS[name]()


if __name__ == "__main__":
    main()
