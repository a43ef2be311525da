"""From a recipe to weights, tensor by tensor: what the live model and the exported folder both call."""

import functools
import hashlib
import shutil
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.checkpoint import ParentFiles
from evomerge.materialize import kernels
from evomerge.materialize.placement import Placement
from evomerge.materialize.statistics import Statistics
from evomerge.recipe import Blend, DareTies, Linear, Recipe, Slerp, Source, TaskArithmetic, Ties

CHUNK = 1 << 15
"""Elements that eager kernels take at once, so that their intermediates stay in the cache."""
WHOLE = 1 << 30
"""Elements that compiled kernels take at once: all of any tensor but the largest, whose places must fit 32 bits."""
WORTH_COMPILING = 20_000_000
"""Weights from which on compiling (half a minute) pays within a few candidates."""


class Merger:
    """Blends single tensors of parents that it holds ready."""

    def __init__(
        self, files: ParentFiles, placement: Placement, device: torch.device, *, compiled: bool | None = None
    ) -> None:
        self.files = files
        self.device = device
        self.compiled = _can_compile(files, device) if compiled is None else compiled
        self._placement = placement
        self._held: dict[tuple[str, str], Tensor] = {}
        self._statistics = Statistics(self._read)

    def blend(self, recipe: Recipe, name: str) -> Blend:
        """The blend that makes the tensor `name`."""
        place = self.files.anatomy.places[name]
        if place.layer is None:
            return recipe.outer[place.part]
        return recipe.layers[place.layer].part(place.part)  # type: ignore[arg-type]

    @torch.no_grad()
    def write(self, recipe: Recipe, name: str, out: Tensor) -> None:
        """Make the tensor `name` in `out`, rounded to the recipe's dtype whatever the dtype of `out`."""
        blend = self.blend(recipe, name)
        job = _Job(blend, name, out.view(-1), getattr(torch, recipe.dtype), recipe.seed)
        single = _unchanged(blend)
        if single is not None:
            job.out.copy_(self._read(single.parent, single.layer, name).to(job.dtype))
            return
        match blend.operator:
            case Linear() | Slerp():
                self._linear(job)
            case TaskArithmetic():
                self._task_arithmetic(job, blend.operator)
            case Ties():
                self._ties(job, blend.operator)
            case DareTies():
                self._dare_ties(job, blend.operator)

    def _linear(self, job: "_Job") -> None:
        blend = job.blend
        weights = [source.weight for source in blend.sources]
        if isinstance(blend.operator, Slerp):
            first, second = blend.sources
            weights = list(self._statistics.slerp(first, second, job.name, blend.operator.t))
        elif isinstance(blend.operator, Linear) and blend.operator.normalize:
            weights = _normalized(weights)
        self._run(kernels.linear, job, (self._tensor(weights),))

    def _task_arithmetic(self, job: "_Job", operator: TaskArithmetic) -> None:
        weights = [source.weight for source in job.blend.sources]
        if operator.normalize:
            weights = _normalized(weights)
        self._run(kernels.task_arithmetic, job, (self._tensor([operator.scale * weight for weight in weights]),))

    def _ties(self, job: "_Job", operator: Ties) -> None:
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

    def _dare_ties(self, job: "_Job", operator: DareTies) -> None:
        sources = job.blend.sources
        keys = [self._key(source, job.name, job.seed) for source in sources]
        limits = [round(source.density * 2**24) for source in sources]
        factors = [
            self._rescaling(operator, job, source, key, limit)
            for source, key, limit in zip(sources, keys, limits, strict=True)
        ]
        weights = [source.weight for source in sources]
        hashing = torch.tensor([keys, limits, [0] * len(keys)], dtype=torch.int32, device=self.device)
        tables = (self._tensor([weights, factors]), self._scales(weights, operator), hashing)
        self._run(kernels.dare_ties, job, tables, normalize=operator.normalize)

    def _rescaling(self, operator: DareTies, job: "_Job", source: Source, key: int, limit: int) -> float:
        if source.density in (0.0, 1.0) or operator.rescale == "none":
            return 1.0
        if operator.rescale == "density":
            return 1.0 / source.density

        def mask(delta: Tensor) -> Tensor:
            places = torch.arange(delta.numel(), device=delta.device, dtype=torch.int32)
            return kernels.hash24(places, torch.tensor(key, dtype=torch.int32, device=delta.device)) < limit

        return self._statistics.l1_rescaling(job.base, source, job.name, mask)

    def _key(self, source: Source, name: str, seed: int) -> int:
        """Where this expert's mask begins: a function of the seed, the expert's content and the tensor alone."""
        digest = self.files.parents.models[source.parent].digest
        moved = self.files.anatomy.in_layer(name, source.layer)
        text = f"{seed}/{digest}/{moved}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little", signed=True)

    def _tensor(self, rows: list[float] | list[list[float]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def _read(self, parent: str, layer: int | None, name: str) -> Tensor:
        moved = self.files.anatomy.in_layer(name, layer)
        if (parent, moved) in self._held:
            return self._held[parent, moved].to(self.device, non_blocking=True)
        tensor = self.files.checkpoints[parent].tensor(self.files.disk[parent][moved]).view(-1)
        if self._placement.where == "device":
            tensor = self._held[parent, moved] = tensor.to(self.device)
        elif self._placement.pinned:
            tensor = self._held[parent, moved] = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _run(self, kernel: kernels.Kernel, job: "_Job", tables: kernels.Tables, *, normalize: bool = False) -> None:
        blend = job.blend
        sources = (*((blend.base,) if blend.base is not None else ()), *blend.sources)
        xs = [self._read(source.parent, source.layer, job.name) for source in sources]
        run, chunk = (_compiled(kernel, len(xs)), WHOLE) if self.compiled else (kernel, CHUNK)
        for start in range(0, job.out.numel(), chunk):
            part = slice(start, start + chunk)
            if kernel is kernels.dare_ties:
                tables[2][2] = start
            run(job.out[part], job.dtype, [x[part] for x in xs], tables, normalize)


@dataclass(frozen=True)
class _Job:
    """One tensor to be merged: how, its name, where to, rounded to what."""

    blend: Blend
    name: str
    out: Tensor
    dtype: torch.dtype
    seed: int

    @property
    def base(self) -> Source:
        """The base's source, which the blend was checked to have."""
        assert self.blend.base is not None
        return self.blend.base


def _unchanged(blend: Blend) -> Source | None:
    """The one source that a blend copies, if that is all it does: exact whatever the dtype."""
    sources = [source for source in blend.sources if source.weight]
    operator = blend.operator
    if isinstance(operator, Slerp):
        return {0.0: blend.sources[0], 1.0: blend.sources[1]}.get(operator.t)
    if not sources and blend.base is not None:
        return blend.base
    if len(sources) != 1 or sources[0].density < 1.0:
        return None
    whole = isinstance(operator, Linear | Ties | TaskArithmetic | DareTies) and operator.normalize
    scale = 1.0 if isinstance(operator, Linear) else operator.scale
    return sources[0] if (1.0 if whole else sources[0].weight) * scale == 1.0 else None


def _normalized(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / (total if abs(total) >= 1e-8 else 1.0) for weight in weights]


def _can_compile(files: ParentFiles, device: torch.device) -> bool:
    tool = shutil.which("g++") or shutil.which("clang++") if device.type == "cpu" else device.type == "cuda"
    return bool(tool) and files.anatomy.parameters >= WORTH_COMPILING


@functools.cache
def _compiled(kernel: kernels.Kernel, inputs: int) -> kernels.Kernel:  # noqa: ARG001  One entry per arity.
    return torch.compile(kernel, dynamic=True, fullgraph=True)
