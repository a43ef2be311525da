"""How what a live model gives changes with its recipe's coefficients: gradients of weights, used up as they come."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evomerge.checkpoint import Anatomy, Shares
from evomerge.materialize.live import LiveModel
from evomerge.materialize.merger import Job
from evomerge.materialize.movement import Movement
from evomerge.recipe import Coefficients, Grain, Recipe


class Leaf(NamedTuple):
    """Where a tensor of the live model hangs; `name` is its own in the merged model."""

    name: str
    owner: nn.Module
    own: str
    shared: bool
    """Whether other layers may refer to the same tensor."""

    @property
    def tensor(self) -> Tensor:
        """The tensor that hangs there."""
        tensor: Tensor = self._held[self.own]
        return tensor

    @property
    def _held(self) -> Any:
        return self.owner._parameters if self.own in self.owner._parameters else self.owner._buffers

    @contextmanager
    def followed(self, note: Callable[[Tensor], None]) -> Iterator[None]:
        """Hand the tensor's gradient to `note` in every backward pass, and let go of it.

        What is shared gets a stand-in over the same memory, with a gradient of its own.
        """
        held, before = self._held, self.tensor
        tensor = nn.Parameter(before.detach(), requires_grad=False) if self.shared else before
        held[self.own] = tensor
        following: Any = tensor.requires_grad_(True)
        hook = following.register_post_accumulate_grad_hook(_taking(note))
        try:
            yield
        finally:
            hook.remove()
            tensor.requires_grad_(False)
            tensor.grad = None
            held[self.own] = before


def _taking(note: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def take(tensor: Tensor) -> None:
        gradient, tensor.grad = tensor.grad, None
        assert gradient is not None, "the hook is called when there is one"
        note(gradient)

    return take


class Gathered:
    """Slopes by tensor of the merged model, added up in fp64: (sources, n) as `Coefficients` are."""

    def __init__(self, grain: Grain) -> None:
        self._grain = grain
        self._sums: dict[str, Tensor] = {}

    def begin(self, name: str, movement: Movement) -> Callable[[Tensor], None]:
        """Begin with zeros; what is returned adds what a gradient of this tensor says."""
        total = self._sums[name] = movement.zeros(self._grain)

        def add(gradient: Tensor) -> None:
            total.add_(movement.contracted(gradient, self._grain))

        return add

    def slopes(self) -> dict[str, NDArray[np.float32]]:
        """The slopes so far."""
        return {name: total.cpu().numpy().astype(np.float32) for name, total in self._sums.items()}


class Slopes:
    """Gathers slopes while others compute losses with a live model, and go back through it.

    Tensors that no coefficient moves, since all their sources hold the same, get no gradient; that is remembered.
    """

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self._still: dict[tuple[object, ...], bool] = {}

    @contextmanager
    def gathered(self, recipe: Recipe, coefficients: Coefficients | None, grain: Grain) -> Iterator[Gathered]:
        """Have backward passes in the block add to the slopes of `recipe`, which was loaded last, by its coefficients.

        Rounding to the recipe's dtype is passed straight through.
        """
        found = Gathered(grain)
        with ExitStack() as following:
            for leaf, movement in self.moved(recipe, coefficients):
                note = found.begin(leaf.name, movement)
                if not self.is_still(movement):
                    following.enter_context(leaf.followed(note))
            yield found

    def is_still(self, movement: Movement) -> bool:
        """Whether no coefficient moves the tensor."""
        if movement.key not in self._still:
            self._still[movement.key] = movement.is_still()
        return self._still[movement.key]

    def moved(self, recipe: Recipe, coefficients: Coefficients | None) -> Iterator[tuple[Leaf, Movement]]:
        """The tensors of the live model that have sources, and what moves them."""
        anatomy: Anatomy = self._live.files.anatomy
        shares = Shares(recipe, anatomy, coefficients)
        for source, place in anatomy.of_depth(recipe.origins()):
            mix = shares.mix(place)
            if mix.blend.sources:
                top = self._live.model if place.layer is None else self._live.stack.hops[place.layer]
                owner, _, own = place.name.rpartition(".")
                leaf = Leaf(anatomy.at(place), top.get_submodule(owner), own, shared=place.layer is not None)
                job = Job(mix.blend, source, leaf.tensor.data.view(-1), leaf.tensor.dtype, recipe.seed, mix.fine)
                yield leaf, Movement.of(self._live.merger, job, anatomy.shapes[source])
