"""From a recipe to weights, tensor by tensor: what the live model and the exported folder both call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, assert_never

import torch
from torch import Tensor

from evomerge.checkpoint import Place
from evomerge.materialize import kernels
from evomerge.materialize.compiled import run_compiled
from evomerge.materialize.statistics import Read, Statistics
from evomerge.recipe import Blend, DareTies, Linear, Recipe, Slerp, Source, TaskArithmetic, Ties

CHUNK = {"cpu": 1 << 15, "cuda": 1 << 24}
"""Elements that eager kernels take at once, so that their intermediates stay in the cache, or in little memory."""
WHOLE = 1 << 30
"""Elements that compiled kernels take at once: all of any tensor but the largest, whose places must fit 32 bits."""
MaskKey: TypeAlias = Callable[[Source, str, int], int]


@dataclass(frozen=True)
class Job:
    """One tensor to be merged: how, its name, where to (flat), rounded to what, with which seed for masks."""

    blend: Blend
    name: str
    out: Tensor
    dtype: torch.dtype
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, place: Place, name: str, out: Tensor, dtype: torch.dtype) -> "Job":
        """The tensor at `place` in a recipe, which is called `name` where it comes from, into `out` of any dtype."""
        component: Any = place.part
        blend = recipe.outer[place.part] if place.layer is None else recipe.layers[place.layer].part(component)
        return cls(blend, name, out.view(-1), dtype, recipe.seed)

    @property
    def base(self) -> Source:
        """The base's source, which the blend was checked to have."""
        assert self.blend.base is not None
        return self.blend.base


class Merger:
    """Blends single tensors.

    `read` fetches the flat tensor of a parent, at another layer's place if one is given; `mask_key` says where the
    mask of a source begins, given tensor name and seed.
    """

    def __init__(self, read: Read, mask_key: MaskKey, device: torch.device, *, compiled: bool = False) -> None:
        self.device = device
        self.compiled = compiled
        self._read = read
        self._mask_key = mask_key
        self._statistics = Statistics(read)

    def stored(self, blend: Blend, name: str, dtype: torch.dtype, compute: torch.dtype) -> Tensor | None:
        """The parent's own tensor (flat), where a blend copies one that is in these dtypes already; to be read only."""
        single = unchanged_source(blend)
        if single is None or dtype != compute:
            return None
        tensor = self._read(single.parent, single.layer, name)
        return tensor if tensor.dtype == compute else None

    @torch.no_grad()
    def write(self, job: Job) -> None:
        """Make the tensor, rounded to the recipe's dtype."""
        blend = job.blend
        single = unchanged_source(blend)
        if single is not None:
            job.out.copy_(self._read(single.parent, single.layer, job.name).to(job.dtype))
            return
        match blend.operator:
            case Linear():
                weights = [source.weight for source in blend.sources]
                self._linear(job, _normalized(weights) if blend.operator.normalize else weights)
            case Slerp():
                first, second = blend.sources
                self._linear(job, self._statistics.slerp(first, second, job.name, blend.operator.t))
            case TaskArithmetic():
                self._task_arithmetic(job, blend.operator)
            case Ties():
                self._ties(job, blend.operator)
            case DareTies():
                self._dare_ties(job, blend.operator)
            case _:
                assert_never(blend.operator)

    def _linear(self, job: Job, weights: Sequence[float]) -> None:
        self._run(kernels.linear, job, (self._tensor(list(weights)),))

    def _task_arithmetic(self, job: Job, operator: TaskArithmetic) -> None:
        weights = [source.weight for source in job.blend.sources]
        if operator.normalize:
            weights = _normalized(weights)
        self._run(kernels.task_arithmetic, job, (self._tensor([operator.scale * weight for weight in weights]),))

    def _ties(self, job: Job, operator: Ties) -> None:
        sources = job.blend.sources
        thresholds = [self._trim(job.base, source, job.name) for source in sources]
        weights = [source.weight for source in sources]
        tables = (self._tensor([weights, thresholds]), self._scales(weights, operator))
        self._run(kernels.ties, job, tables, normalize=operator.normalize)

    def _scales(self, weights: list[float], operator: Ties | DareTies) -> Tensor:
        return self._tensor(kernels.subset_scales(weights, operator.scale, normalize=operator.normalize))

    def _trim(self, base: Source, source: Source, name: str) -> float:
        if source.density >= 1.0:
            return 0.0
        # Nothing is larger than the largest float: a density of zero keeps nothing.
        return self._statistics.threshold(base, source, name) if source.density > 0 else torch.finfo(torch.float32).max

    def _dare_ties(self, job: Job, operator: DareTies) -> None:
        sources = job.blend.sources
        keys = [self._mask_key(source, job.name, job.seed) for source in sources]
        limits = [round(source.density * 2**24) for source in sources]
        factors = [
            self._rescaling(operator, job, source, key, limit)
            for source, key, limit in zip(sources, keys, limits, strict=True)
        ]
        weights = [source.weight for source in sources]
        hashing = torch.tensor([keys, limits, [0] * len(keys)], dtype=torch.int32, device=self.device)
        tables = (self._tensor([weights, factors]), self._scales(weights, operator), hashing)
        self._run(kernels.dare_ties, job, tables, normalize=operator.normalize)

    def _rescaling(self, operator: DareTies, job: Job, source: Source, key: int, limit: int) -> float:
        if source.density in (0.0, 1.0) or operator.rescale == "none":
            return 1.0
        if operator.rescale == "density":
            return 1.0 / source.density
        return self._statistics.l1_rescaling(job.base, source, job.name, (key, limit))

    def _tensor(self, rows: list[float] | list[list[float]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def _run(self, kernel: kernels.Kernel, job: Job, tables: kernels.Tables, *, normalize: bool = False) -> None:
        blend = job.blend
        sources = (*((blend.base,) if blend.base is not None else ()), *blend.sources)
        xs = [self._read(source.parent, source.layer, job.name) for source in sources]
        run, chunk = (partial(run_compiled, kernel), WHOLE) if self.compiled else (kernel, CHUNK[self.device.type])
        for start in range(0, job.out.numel(), chunk):
            part = slice(start, start + chunk)
            if kernel is kernels.dare_ties:
                tables[2][2] = start
            run(job.out[part], job.dtype, [x[part] for x in xs], tables, normalize)


def unchanged_source(blend: Blend) -> Source | None:
    """The one source that a blend copies, if that is all it does: exact whatever the dtype."""
    operator = blend.operator
    if operator.sums == "never" and not operator.pair:
        return None
    shares = [(source, weight) for source, weight in zip(blend.sources, blend.weights(), strict=True) if weight]
    if not shares and blend.base is not None:
        return blend.base
    if len(shares) != 1 or (operator.takes_density and shares[0][0].density < 1.0):
        return None
    source, weight = shares[0]
    return source if (1.0 if operator.normalize else weight) * operator.scale == 1.0 else None


def _normalized(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / (total if abs(total) >= 1e-8 else 1.0) for weight in weights]
