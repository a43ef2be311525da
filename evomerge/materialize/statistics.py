"""What the operators need to know of a task vector before the first candidate, computed once and kept.

Thresholds of TIES, angles of slerp, norms for DARE: none depends on a searched weight.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from evomerge.materialize import kernels
from evomerge.recipe import DENSITY_LEVELS, Source

Read = Callable[[str, int | None, str], Tensor]
"""Parent, layer and tensor name to the flat stored tensor."""


class Statistics:
    """Facts about pairs of parents at one tensor, by (pair, tensor); `read` fetches what is not known yet."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._thresholds: dict[tuple[object, ...], Tensor] = {}
        self._norms: dict[tuple[object, ...], float] = {}
        self._angles: dict[tuple[object, ...], tuple[float, float, float]] = {}

    def threshold(self, base: Source, source: Source, name: str) -> float:
        """Magnitude of the smallest element that trimming to the source's density keeps.

        Keeps the `max(1, floor(density * N))` largest and all that tie with the last of them.
        """
        key = (base.parent, base.layer, source.parent, source.layer, name)
        step = round(source.density * DENSITY_LEVELS)
        if abs(step / DENSITY_LEVELS - source.density) > 1e-9:
            return float(self._order(base, source, name, [source.density])[0])
        if key not in self._thresholds:
            every = [i / DENSITY_LEVELS for i in range(DENSITY_LEVELS + 1)]
            self._thresholds[key] = self._order(base, source, name, every)
        return float(self._thresholds[key][step])

    def _order(self, base: Source, source: Source, name: str, densities: list[float]) -> Tensor:
        """Smallest kept magnitude for each of `densities`, fp32 on the CPU."""
        magnitudes = _sorted(self._delta(base, source, name).abs())
        count = magnitudes.numel()
        return magnitudes[[count - _rank(density, count) for density in densities]].cpu()

    def l1_rescaling(self, base: Source, source: Source, name: str, mask: tuple[int, int]) -> float:
        """mergekit's factor for DARE: L1 norm of the task vector over that of what a mask (key, limit) keeps of it."""
        key = (base.parent, base.layer, source.parent, source.layer, name, mask)
        if key not in self._norms:
            delta = self._delta(base, source, name)
            whole = float(delta.abs().sum(dtype=torch.float64))
            kept = float((delta * kernels.keeps(delta, *mask)).abs().sum(dtype=torch.float64))
            self._norms[key] = whole / kept if min(whole, kept) >= 1e-7 else 1.0
        return self._norms[key]

    def slerp(self, first: Source, second: Source, name: str, t: float) -> tuple[float, float]:
        """Coefficients of the two sources; linear where they point the same way (|cos| > 0.9995)."""
        angle = self._angle(first, second, name)
        if angle is None:
            return 1.0 - t, t
        return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)

    def slerp_slopes(self, first: Source, second: Source, name: str, t: float) -> tuple[float, float]:
        """Derivatives of these coefficients by `t`."""
        angle = self._angle(first, second, name)
        if angle is None:
            return -1.0, 1.0
        turned = angle / math.sin(angle)
        return -math.cos((1 - t) * angle) * turned, math.cos(t * angle) * turned

    def _angle(self, first: Source, second: Source, name: str) -> float | None:
        """The angle between two tensors; None where they point the same way, or opposite ways."""
        key = (first.parent, first.layer, second.parent, second.layer, name)
        if key not in self._angles:
            a, b = (self._read(source.parent, source.layer, name).double() for source in (first, second))
            self._angles[key] = (float(a @ a), float(b @ b), float(a @ b))
        aa, bb, ab = self._angles[key]
        lengths = [math.sqrt(square) if math.sqrt(square) > 1e-8 else 1.0 for square in (aa, bb)]
        cosine = min(max(ab / (lengths[0] * lengths[1]), -1.0), 1.0)
        return None if abs(cosine) > 0.9995 else math.acos(cosine)

    def _delta(self, base: Source, source: Source, name: str) -> Tensor:
        return self._read(source.parent, source.layer, name).float() - self._read(base.parent, base.layer, name).float()


def _rank(density: float, count: int) -> int:
    """How many elements a density keeps; the tiny addend undoes what 0.29 * 100 loses."""
    return max(1, int(density * count + 1e-9))


def _sorted(values: Tensor) -> Tensor:
    """Ascending. NumPy's vectorised sort is several times faster on a CPU than torch's."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy()))
    return values.sort().values
