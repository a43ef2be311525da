"""How each request's own score changes with a few numbers of a recipe: one way back for all rows of a pass.

Every row has a score of its own, so that going back from their sum leaves, wherever a module gives something, each
row's gradient of it. Its product with how that something changes with a coefficient of the module's weights, for a
linear map `D_k x`, is the derivative of the row's score. No gradient of weights is made, and no row waits for another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import linear

from evomerge.materialize.live import LiveModel
from evomerge.materialize.movement import Movement
from evomerge.materialize.slopes import Leaf, Slopes
from evomerge.recipe import Coefficients, Recipe

Ties = Mapping[str, Sequence[int]]
"""For each tensor of a merged model, which of the numbers each of its coefficients is."""


class NotByRow(Exception):
    """A module gives something of which it does not show which rows it belongs to."""


class Pass(NamedTuple):
    """Rows of one forward pass, padded to `length`: the request of each (rows,), and which row each read is of."""

    requests: Tensor
    length: int
    reads: Tensor


class Part(NamedTuple):
    """A tensor that a module has under its `own` name, what moves it, and which numbers its coefficients are."""

    own: str
    movement: Movement
    numbers: Sequence[int]


class Followed:
    """Derivatives of requests' scores by so many numbers, gathered pass by pass in fp64.

    What `head` gives is of the reads alone, not of rows.
    """

    def __init__(self, numbers: int, head: nn.Module) -> None:
        self._numbers = numbers
        self._head = head
        self._passes: list[tuple[Tensor, Tensor]] = []
        self._is_busy = False

    def begin(self, requests: Tensor, length: int, reads: Tensor) -> None:
        """A pass begins: see `Pass`."""
        self._pass = Pass(requests, length, reads)
        self._sums = torch.zeros(len(requests), self._numbers, dtype=torch.float64, device=reads.device)
        self._passes.append((requests, self._sums))

    def found(self) -> Tensor:
        """The derivatives (requests, numbers), in host memory."""
        sums = torch.cat([sums.cpu() for _, sums in self._passes])
        return sums[torch.cat([requests for requests, _ in self._passes]).argsort()]

    @contextmanager
    def watching(self, module: nn.Module, parts: Sequence[Part]) -> Iterator[None]:
        """Follow what a module gives in the block, and how it depends on these tensors of it."""
        # Before all others' hooks: what they make of it is the rest of the model.
        handle = module.register_forward_hook(self._follower(parts), prepend=True, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _follower(self, parts: Sequence[Part]) -> Callable[..., Any]:
        def follow(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
            if self._is_busy:
                return None
            if not isinstance(out, Tensor):
                raise NotByRow(f"{type(module).__name__} gives more than one thing")
            if len(out) == 1 < len(self._pass.requests) and module is not self._head:
                out = out.expand(len(self._pass.requests), *out.shape[1:]).clone()  # Positions: the same for all rows.
            if not out.requires_grad:
                out = out.detach().requires_grad_(True).clone()
            out.register_hook(lambda gradient: self._add(module, parts, (args, kwargs), gradient))
            return out

        return follow

    @torch.no_grad()
    def _add(self, module: nn.Module, parts: Sequence[Part], given: tuple[Any, Any], gradient: Tensor) -> None:
        """Take in the gradient of what a module gave."""
        self._is_busy = True  # It may be run once more, which is none of the model's.
        try:
            for part in parts:
                values = self._by_row(module, moved(module, part, given, gradient))
                for number, value in zip(part.numbers, values, strict=True):
                    self._sums[:, number] += value
        finally:
            self._is_busy = False

    def _by_row(self, module: nn.Module, values: Tensor) -> Tensor:
        """Sums of values (coefficients, ...) over the places of each row: (coefficients, rows)."""
        rows, length = len(self._pass.requests), self._pass.length
        if module is self._head:
            flat = values.flatten(1).double()
            return torch.zeros(len(flat), rows, dtype=flat.dtype, device=flat.device).index_add_(
                1, self._pass.reads, flat
            )
        if values.shape[1] not in (rows, rows * length):
            raise NotByRow(f"{type(module).__name__} does not keep rows apart")
        return values.reshape(len(values), rows, -1).double().sum(-1)


class Jacobians:
    """Follows requests' scores through a live model, while others go back from them."""

    def __init__(self, live: LiveModel, slopes: Slopes) -> None:
        self._live = live
        self._slopes = slopes

    @contextmanager
    def followed(self, recipe: Recipe, coefficients: Coefficients | None, ties: Ties) -> Iterator[Followed]:
        """Have passes in the block, each begun with `begin`, add to the derivatives by what `ties` says.

        The recipe is that which was loaded last; its rounding is passed straight through.
        """
        numbers = 1 + max(max(each) for each in ties.values())
        found = Followed(numbers, self._live.model.get_output_embeddings())
        parts: dict[nn.Module, list[Part]] = {}
        for leaf, movement in self._slopes.moved(recipe, coefficients):
            if leaf.name in ties and not self._slopes.is_still(movement):
                for owner, own in self._homes(leaf):
                    parts.setdefault(owner, []).append(Part(own, movement, ties[leaf.name]))
        with ExitStack() as watching:
            for module, its in parts.items():
                watching.enter_context(found.watching(module, its))
            yield found

    def _homes(self, leaf: Leaf) -> list[tuple[nn.Module, str]]:
        """Where a tensor hangs: embeddings may be the head's too. A layer's, which others may share, at its place."""
        if leaf.shared:
            return [(leaf.owner, leaf.own)]
        return [
            (module, own)
            for module in self._live.model.modules()
            for own, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is leaf.tensor
        ]


def moved(module: nn.Module, part: Part, given: tuple[tuple[Any, ...], dict[str, Any]], gradient: Tensor) -> Tensor:
    """How the sum of what a module gave times `gradient` changes with each coefficient: (coefficients, *places)."""
    args, kwargs = given
    if type(module) is nn.Linear and part.own == "weight" and args:
        return _of_linear(args[0], part.movement, gradient)
    if type(module) is nn.Embedding and args:
        return _of_embedding(args[0], part.movement, gradient)
    whole = [_whole(part, order) for order in range(len(part.movement.weights))]
    if part.own == "bias" and type(module) in (nn.Linear, nn.LayerNorm):
        return torch.stack([gradient.float() @ derivative for derivative in whole])
    tangents = (_tangent(module, part.own, derivative, args, kwargs) for derivative in whole)
    return torch.stack([(tangent.float() * gradient.float()).sum(-1) for tangent in tangents])


def _of_linear(x: Tensor, movement: Movement, gradient: Tensor) -> Tensor:
    found = gradient.new_zeros(len(movement.weights), *gradient.shape[:-1], dtype=torch.float32)
    for block, derivatives in movement.blocks():
        part = gradient[..., block].float()
        for sums, derivative in zip(found, derivatives, strict=True):
            sums += (linear(x, derivative.to(x.dtype)).float() * part).sum(-1)
    return found


def _of_embedding(tokens: Tensor, movement: Movement, gradient: Tensor) -> Tensor:
    tokens = tokens.expand(gradient.shape[:-1])  # Positions may have been given once for all rows.
    found = gradient.new_zeros(len(movement.weights), *tokens.shape, dtype=torch.float32)
    for block, derivatives in movement.blocks():
        there = (tokens >= block.start) & (tokens < block.stop)
        picked, part = tokens[there] - block.start, gradient[there].float()
        for sums, derivative in zip(found, derivatives, strict=True):
            sums[there] = (derivative[picked] * part).sum(-1)
    return found


def _whole(part: Part, order: int) -> Tensor:
    """The derivative of a tensor by one of its coefficients, flat, in fp32."""
    return torch.cat([list(derivatives)[order].flatten() for _, derivatives in part.movement.blocks()])


def _tangent(module: nn.Module, own: str, derivative: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """How what a module gives changes where its tensor moves along a derivative, whatever it does with it."""
    held: Any = module._parameters if own in module._parameters else module._buffers
    tensor = held[own]
    ahead: Any = forward_ad
    with ahead.dual_level():
        try:
            held[own] = ahead.make_dual(tensor.detach(), derivative.view_as(tensor).to(tensor.dtype))
            found = ahead.unpack_dual(module.forward(*args, **kwargs)).tangent
        finally:
            held[own] = tensor
    assert isinstance(found, Tensor), "what it gives depends on the tensor"
    return found
