"""Optimisers on zoos whose best merge is known, by forward passes: what they find on items that nobody searched on."""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import table
from planted import Zoo, plant

import evomerge

ZOOS = {
    "planted": [Zoo(family, seed) for family in ("qwen3", "gpt_neox", "gemma2") for seed in (1, 2)],
    "noisy": [Zoo(family, seed, noise=0.1) for family in ("llama", "olmo2") for seed in (1, 2)],
    "finer": [Zoo("qwen3", 1, finely=True)],
}
"""The hidden merge answers all items right; or all but every tenth, whose label is drawn anew; or it has a weight for
each tensor, where those of layers are searched for."""
BUDGETS = (3_000, 6_000, 12_000)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "cma": {"kind": "cma"},
    "cma, loss": {"kind": "cma", "told": "loss"},
    "surrogate": {"kind": "surrogate"},
    "gradient": {"kind": "gradient"},
}


def bench_search(only: str | None = None, kind: str | None = None) -> None:
    """Every optimiser with every budget on every zoo, confirmed on 600 items; the mean, its spread, the worst.

    With `only` it is that optimiser alone, with `kind` zoos of that kind alone.
    """
    wanted = {name: each for name, each in OPTIMIZERS.items() if only in (None, name)}
    for called, zoos in ZOOS.items():
        if kind in (None, called):
            _bench_zoos(called, zoos, wanted)


def _bench_zoos(kind: str, zoos: Sequence[Zoo], wanted: Mapping[str, dict[str, Any]]) -> None:
    found: dict[tuple[str, int], list[float]] = {}
    for zoo in zoos:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            plain = plant(folder, zoo)
            for name, optimizer in wanted.items():
                for budget in BUDGETS:
                    value, seconds = _searched(plain, optimizer, budget, folder / f"{name} {budget}")
                    found.setdefault((name, budget), []).append(value)
                    print(zoo.family, zoo.seed, name, budget, f"{value:.3f}", f"{seconds:.0f} s of CPU", flush=True)
    rows: list[Sequence[object]] = [("optimiser", "units", "mean", "spread", "worst", "each")]
    for (name, budget), values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = " ".join(f"{value:.3f}" for value in values)
        rows.append((name, budget, round(statistics.mean(values), 3), round(spread, 3), min(values), each))
    table(f"search, {kind} zoos: accuracy of the best candidate, confirmed", rows)


def _searched(plain: dict[str, Any], optimizer: dict[str, Any], budget: int, out: Path) -> tuple[float, float]:
    """The best candidate's confirmed accuracy, and CPU seconds."""
    started = time.process_time()
    spec = {**plain, "optimizer": optimizer, "budget": {"item_evaluations": budget}, "seed": 3}
    best = evomerge.search(spec, out).best
    assert best is not None and best.confirmed is not None, "the search has finished"
    return best.confirmed["planted"][0], time.process_time() - started
