"""From a recipe to weights, tensor by tensor: what the live model and the exported folder both call."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, assert_never

import numpy as np
import torch
from torch import Tensor

from evomerge.checkpoint import Fine, Mix
from evomerge.materialize import kernels
from evomerge.materialize.compiled import run_compiled
from evomerge.materialize.statistics import Read, Statistics
from evomerge.recipe import NO_SUM, Blend, DareTies, Linear, Slerp, Source, TaskArithmetic, Ties

CHUNK = {"cpu": 1 << 15, "cuda": 1 << 24}
"""Elements that eager kernels take at once, so that their intermediates stay in the cache, or in little memory."""
WHOLE = 1 << 30
"""Elements that compiled kernels take at once: all of any tensor but the largest, whose places must fit 32 bits."""
MaskKey: TypeAlias = Callable[[Source, str, int], int]
Factors: TypeAlias = tuple[Tensor, Tensor]
"""(rows, rank) and (rank, columns): what an adapter adds to a tensor of its base is their product."""
Product: TypeAlias = Callable[[Source, Source, str], Factors | None]


@dataclass(frozen=True)
class Job:
    """One tensor to be merged: how, its name, where to (flat), rounded to what, with which seed for masks.

    Weights that differ within it are `fine`; then those of the blend are not read.
    """

    blend: Blend
    name: str
    out: Tensor
    dtype: torch.dtype
    seed: int
    fine: Fine | None = None

    @property
    def base(self) -> Source:
        """The base's source, which the blend was checked to have."""
        assert self.blend.base is not None
        return self.blend.base


class Mask(NamedTuple):
    """What DARE keeps of a task vector: where the hash of a place, keyed, is below a limit; and times what."""

    key: int
    limit: int
    factor: float


class Merger:
    """Blends single tensors.

    `read` fetches the flat tensor of a parent, at another layer's place if one is given; `mask_key` says where the
    mask of a source begins, given tensor name and seed; `product` gives the factors of what a source adds to a base,
    None where it is no such product.
    """

    def __init__(
        self,
        read: Read,
        mask_key: MaskKey,
        device: torch.device,
        *,
        product: Product = lambda *_: None,
        compiled: bool = False,
    ) -> None:
        self.device = device
        self.compiled = compiled
        self._read = read
        self._mask_key = mask_key
        self._product = product
        self._statistics = Statistics(read)

    def stored(self, mix: Mix, name: str, dtype: torch.dtype, compute: torch.dtype) -> Tensor | None:
        """The parent's own tensor (flat), where a mix copies one that is in these dtypes already; to be read only."""
        single = single_source(mix)
        if single is None or dtype != compute:
            return None
        tensor, again = (self._read(single.parent, single.layer, name) for _ in range(2))
        # What is made anew whenever it is read, as an adapter's is, is nobody's to refer to.
        return tensor if tensor.dtype == compute and tensor.data_ptr() == again.data_ptr() else None

    @torch.no_grad()
    def write(self, job: Job) -> None:
        """Make the tensor, rounded to the recipe's dtype."""
        blend = job.blend
        single = single_source(Mix(blend, job.fine))
        if single is not None:
            job.out.copy_(self._read(single.parent, single.layer, job.name).to(job.dtype))
            return
        match blend.operator:
            case Linear():
                self._run(kernels.linear, job, (self._weights(job),))
            case Slerp():
                first, second = blend.sources
                shares = self._statistics.slerp(first, second, job.name, blend.operator.t)
                self._run(kernels.linear, job, (self._tensor(list(shares)),))
            case TaskArithmetic():
                if not self._multiplied(job):
                    self._run(kernels.task_arithmetic, job, (self._weights(job),))
            case Ties():
                self._ties(job, blend.operator)
            case DareTies():
                self._dare_ties(job, blend.operator)
            case _:
                assert_never(blend.operator)

    def _multiplied(self, job: Job) -> bool:
        """The base and one product of all that adapters add to it, their factors side by side, if they are all that."""
        factors = [self._product(source, job.base, job.name) for source in job.blend.sources]
        if None in factors:
            return False
        lefts, rights = [], []
        for pair, weight in zip(factors, self._weights(job), strict=True):
            assert pair is not None, "none of them is"
            by_row = job.fine is not None and job.fine.grain == "row"
            lefts.append(pair[0] * weight[:, None] if by_row else pair[0])
            rights.append(pair[1] if by_row else pair[1] * weight)
        left, right = torch.cat(lefts, 1), torch.cat(rights)
        base = self._read(job.base.parent, job.base.layer, job.name)
        if len(right):
            base = torch.addmm(base.view(len(left), right.shape[1]).float(), left, right).view(-1)
        job.out.copy_(base.to(job.dtype))
        return True

    def _weights(self, job: Job) -> Tensor:
        """What the sources of a sum are multiplied by, fp32: (sources,), or (sources, columns or rows)."""
        operator = job.blend.operator
        if job.fine is not None:
            return self._fine(job.fine, normalize=operator.normalize, scale=operator.scale)
        weights = list(job.blend.coefficients())
        if operator.normalize:
            weights = _normalized(weights)
        return self._tensor([operator.scale * weight for weight in weights])

    def _fine(self, fine: Fine, *, normalize: bool = False, scale: float = 1.0) -> Tensor:
        """Weights that differ within a tensor, (sources, columns or rows), rounded once."""
        values = fine.values.astype(np.float64)
        if normalize:
            total = values.sum(axis=0)
            values /= np.where(np.abs(total) >= NO_SUM, total, 1.0)
        return torch.from_numpy((scale * values).astype(np.float32)).to(self.device)

    def sources(self, job: Job) -> list[Tensor]:
        """The stored tensors (flat) that a tensor is made of, the base first where there is one; to be read only."""
        blend = job.blend
        sources = (*((blend.base,) if blend.base is not None else ()), *blend.sources)
        return [self._read(source.parent, source.layer, job.name) for source in sources]

    def trims(self, job: Job) -> list[float]:
        """For each source the least magnitude that TIES keeps of its task vector."""
        return [self._trim(job.base, source, job.name) for source in job.blend.sources]

    def masks(self, job: Job, operator: DareTies) -> list[Mask]:
        """What DARE keeps of each source's task vector."""
        found = []
        for source in job.blend.sources:
            key, limit = self._mask_key(source, job.name, job.seed), round(source.density * 2**24)
            found.append(Mask(key, limit, self._rescaling(operator, job, source, key, limit)))
        return found

    def turn(self, job: Job, t: float) -> tuple[float, float]:
        """Derivatives of the coefficients that slerp gives its two sources, by t."""
        first, second = job.blend.sources
        return self._statistics.slerp_slopes(first, second, job.name, t)

    def _ties(self, job: Job, operator: Ties) -> None:
        self._run(kernels.ties, job, self._voted(job, self.trims(job), operator), normalize=operator.normalize)

    def _voted(self, job: Job, facts: list[float], operator: Ties | DareTies) -> kernels.Tables:
        """Tables of an election: weights, another number for each source, and scales."""
        if job.fine is not None:
            return self._fine(job.fine), self._tensor(facts), self._tensor([operator.scale])
        weights = list(job.blend.coefficients())
        scales = kernels.subset_scales(weights, operator.scale, normalize=operator.normalize)
        return (*self._tensor([weights, facts]), self._tensor(scales))

    def _trim(self, base: Source, source: Source, name: str) -> float:
        if source.density >= 1.0:
            return 0.0
        # Nothing is larger than the largest float: a density of zero keeps nothing.
        return self._statistics.threshold(base, source, name) if source.density > 0 else torch.finfo(torch.float32).max

    def _dare_ties(self, job: Job, operator: DareTies) -> None:
        keys, limits, factors = map(list, zip(*self.masks(job, operator), strict=True))
        hashing = torch.tensor([keys, limits, [0] * len(keys)], dtype=torch.int32, device=self.device)
        tables = (*self._voted(job, factors, operator), hashing)
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
        xs = self.sources(job)
        run, chunk = (partial(run_compiled, kernel), WHOLE) if self.compiled else (kernel, CHUNK[self.device.type])
        if job.fine is not None:
            chunk = max(1, chunk // job.fine.columns) * job.fine.columns
        for start in range(0, job.out.numel(), chunk):
            part = slice(start, start + chunk)
            if kernel is kernels.dare_ties:
                tables[-1][2] = start
            out, pieces = job.out[part], [x[part] for x in xs]
            if job.fine is None:
                run(out, job.dtype, pieces, tables, normalize)
            else:
                grid = (-1, job.fine.columns)
                weights = _spread(tables[0], job.fine, part)
                run(out.view(grid), job.dtype, [x.view(grid) for x in pieces], (weights, *tables[1:]), normalize)


def _spread(weights: Tensor, fine: Fine, part: slice) -> Tensor:
    """Weights for some whole rows of a tensor, as they are multiplied with (rows, columns)."""
    match fine.grain:
        case "column":
            return weights[:, None, :]
        case "row":
            return weights[:, part.start // fine.columns : part.stop // fine.columns, None]
        case _:
            assert_never(fine.grain)


def single_source(mix: Mix) -> Source | None:
    """The one source that a mix copies, if that is all it does."""
    return None if mix.fine is not None else unchanged_source(mix.blend)


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
