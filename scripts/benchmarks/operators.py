"""The merge kernels, as multiples of a copy."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import table, timed

from evomerge.materialize import Job, Merger
from evomerge.recipe import Blend, DareTies, Linear, Operator, Slerp, Source, TaskArithmetic, Ties

SIDE = 4096
EXPERTS = 3


class OneTensor:
    """Merges one large tensor and holds a few sets of parents, so that no round finds its inputs in the cache."""

    def __init__(self, *, compiled: bool, sets: int = 3) -> None:
        self.merger = Merger(self.read, self.mask_key, torch.device("cpu"), compiled=compiled)
        generator = torch.Generator().manual_seed(0)
        self.sets: list[dict[str, torch.Tensor]] = []
        for _ in range(sets):
            base = torch.randn(SIDE * SIDE, generator=generator) * 0.02
            models = {"base": base.bfloat16()}
            for i in range(EXPERTS):
                models[f"e{i}"] = (base + torch.randn(SIDE * SIDE, generator=generator) * 5e-4).bfloat16()
            self.sets.append(models)
        self.here = 0

    def read(self, parent: str, layer: int | None, name: str) -> torch.Tensor:  # noqa: ARG002
        """A parent of the set whose turn it is."""
        return self.sets[self.here][parent]

    def mask_key(self, source: Source, name: str, seed: int) -> int:  # noqa: ARG002
        """A number of its own for each expert."""
        return int(source.parent[1:]) * 7919


def blend_of(operator: Operator) -> Blend:
    """All experts at half density."""
    count = 2 if isinstance(operator, Slerp) else EXPERTS
    sources = tuple(Source(parent=f"e{i}", weight=0.4 + 0.2 * i, density=0.5) for i in range(count))
    needs_base = not isinstance(operator, Linear | Slerp)
    return Blend(operator=operator, base=Source(parent="base") if needs_base else None, sources=sources)


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

    def merging(one: OneTensor, operator: Operator) -> Callable[[int], None]:
        blend = blend_of(operator)

        def run(turn: int) -> None:
            one.here = turn % len(one.sets)
            one.merger.write(Job(blend, f"set {one.here}", outs[turn % 3], torch.bfloat16, seed=0))

        for turn in range(len(one.sets)):  # Thresholds and angles are found once a search, not once a candidate.
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
