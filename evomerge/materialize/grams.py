"""What linear maps read, as Gram matrices, and RegMean: the merge that suits each expert on its own inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

MAPS = (nn.Linear, Conv1D)


class Grams:
    """Gram matrices of the inputs of linear maps, (inputs, inputs) in fp32, summed over the tokens that count.

    Maps that read the same tensor (queries, keys and values) have one together.
    """

    def __init__(self) -> None:
        self._filled: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._stands_for: dict[str, str] = {}
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor | None:
        """That of the map that owns the tensor `name`; None if nothing was read by it."""
        return self._sums.get(self.stands_for(name))

    def stands_for(self, name: str) -> str:
        """The first map that reads what this one reads."""
        return self._stands_for.get(name, name)

    def begin(self, filled: Tensor) -> None:
        """A pass begins, in which these are tokens, and the rest padding: (rows, length).

        The first of a row does not count. Many models park their attention there, with activations a thousand times as
        large as all others, which are the same whatever is read.
        """
        self._filled, self._last = filled.clone(), None
        self._filled[:, 0] = False

    def over(self, count: int) -> Self:
        """The same, divided by a number of items."""
        for gram in self._sums.values():
            gram /= count
        return self

    @contextmanager
    def watching(self, maps: Mapping[str, nn.Module]) -> Iterator[None]:
        """Add what these maps read in the block, by the names of their weights."""
        with ExitStack() as hooks:
            for name, module in maps.items():
                hooks.callback(module.register_forward_pre_hook(self._adder(name)).remove)
            yield

    def _adder(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x: Tensor = inputs[0]
            if self._last is not None and x is self._last[1]:
                self._stands_for[name] = self._last[0]
                return
            self._last = name, x
            # Mixtures of experts hand tokens on in an order of their own, without those that are for others.
            fits = self._filled is not None and x.shape[:-1] == self._filled.shape
            rows = (x[self._filled] if fits else x.flatten(0, -2)).float()
            gram = (rows.T @ rows).cpu()
            self._sums[name] = self._sums[name].add_(gram) if name in self._sums else gram

        return add


def linear_maps(layer: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The linear maps of a layer by the names of their weights, which are among `names`."""
    found = {}
    for name in names:
        owner, _, own = name.rpartition(".")
        module = layer.get_submodule(owner)
        if own == "weight" and isinstance(module, MAPS):
            found[name] = module
    return found


def shares(grams: Sequence[Tensor], eps: float) -> list[Tensor]:
    """What RegMean multiplies each expert's linear map by, from the side of its inputs: (inputs, inputs) in fp64.

    `(G_k + e) (sum_j (G_j + e))^-1`, with e that part of the mean of all diagonals (Jin et al. 2023, eq. 2, with the
    diagonal raised instead of all else shrunk). They sum to one; where nothing was read all experts count alike.
    """
    raised = [gram.to(torch.float64, copy=True) for gram in grams]
    added = eps * sum(float(gram.diagonal().mean()) for gram in raised) / len(raised)
    if not added:
        return [torch.eye(len(gram), dtype=torch.float64) / len(raised) for gram in raised]
    for gram in raised:
        gram.diagonal().add_(added)
    whole = torch.stack(raised).sum(0)
    # (G S^-1)' = S^-1 G, both being symmetric.
    return [torch.linalg.solve(whole, gram).T for gram in raised]


def suited(weight: Tensor, base: Tensor | float, share: Tensor, count: int, module: nn.Module) -> Tensor:
    """An expert's map as it is to be merged with all `count` experts at weights 1/count, which is RegMean."""
    delta = (weight.double() - base) * count
    return (base + (share.T @ delta if isinstance(module, Conv1D) else delta @ share)).float()
