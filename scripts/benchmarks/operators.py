"""The merge kernels, as multiples of a copy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import table, timed

from evomerge.materialize import Merger
from evomerge.materialize.statistics import Statistics
from evomerge.recipe import Blend, DareTies, Linear, Operator, Slerp, Source, TaskArithmetic, Ties

SIDE = 4096
EXPERTS = 3


class OneTensor(Merger):
    """A merger over one large tensor and a few sets of parents, so that no round finds its inputs in the cache."""

    def __init__(self, *, compiled: bool, sets: int = 3) -> None:
        self.device = torch.device("cpu")
        self.compiled = compiled
        generator = torch.Generator().manual_seed(0)
        self.sets: list[dict[str, torch.Tensor]] = []
        for _ in range(sets):
            base = torch.randn(SIDE * SIDE, generator=generator) * 0.02
            models = {"base": base.bfloat16()}
            for i in range(EXPERTS):
                models[f"e{i}"] = (base + torch.randn(SIDE * SIDE, generator=generator) * 5e-4).bfloat16()
            self.sets.append(models)
        self.here = 0
        self._statistics = Statistics(self._read)

    def _read(self, parent: str, layer: int | None, name: str) -> torch.Tensor:  # noqa: ARG002
        return self.sets[self.here][parent]

    def _key(self, source: Source, name: str, seed: int) -> int:  # noqa: ARG002
        return int(source.parent[1:]) * 7919

    def blend(self, recipe: Any, name: str) -> Blend:  # noqa: ARG002
        """The blend itself stands for the recipe."""
        found: Blend = recipe.blend
        return found


class Given:
    """Just enough of a recipe: one blend."""

    dtype = "bfloat16"
    seed = 0

    def __init__(self, operator: Operator) -> None:
        count = 2 if isinstance(operator, Slerp) else EXPERTS
        sources = tuple(Source(parent=f"e{i}", weight=0.4 + 0.2 * i, density=0.5) for i in range(count))
        needs_base = not isinstance(operator, Linear | Slerp)
        self.blend = Blend(operator=operator, base=Source(parent="base") if needs_base else None, sources=sources)


def bench_operators() -> None:
    """Merging one 4096 x 4096 bf16 tensor of three experts, as multiples of copying it."""
    operators: dict[str, Operator] = {
        "linear": Linear(),
        "slerp": Slerp(t=0.4),
        "task_arithmetic": TaskArithmetic(),
        "ties": Ties(),
        "dare_ties": DareTies(),
    }
    compiled, eager = OneTensor(compiled=True), OneTensor(compiled=False)
    outs = [torch.empty(SIDE * SIDE, dtype=torch.bfloat16) for _ in range(3)]

    def merging(merger: OneTensor, operator: Operator) -> Callable[[int], None]:
        recipe: Any = Given(operator)

        def run(turn: int) -> None:
            merger.here = turn % len(merger.sets)
            merger.write(recipe, f"set {merger.here}", outs[turn % 3])

        for turn in range(len(merger.sets)):  # Thresholds and angles are found once a search, not once a candidate.
            run(turn)
        return run

    def copying(turn: int) -> None:
        outs[turn % 3].copy_(compiled.sets[turn % 3]["e0"])

    contestants = {"copy": copying} | {name: merging(compiled, operator) for name, operator in operators.items()}
    fast = timed(contestants, 15)
    slow = timed({name: merging(eager, operator) for name, operator in operators.items()}, 3)
    features = " ".join(flag for flag in ("avx512f", "avx2") if flag in Path("/proc/cpuinfo").read_text())
    rows: list[Sequence[object]] = [("operator", "ms", "x copy", "x copy, chunked eager")]
    for name, seconds in fast.items():
        rows.append((name, seconds * 1e3, seconds / fast["copy"], slow[name] / fast["copy"] if name in slow else ""))
    table(f"operators: {SIDE} x {SIDE} bf16, base and {EXPERTS} experts, one thread, {features}", rows)
