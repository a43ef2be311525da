"""Several objectives put to an optimiser of one."""

from collections.abc import Callable, Sequence

from evomerge.fitness import Bounds, bounds_of
from evomerge.optimize import Optimizer
from evomerge.optimize.checks import checked
from evomerge.trial import Observation
from evomerge.values import Genome

Scalar = Callable[[Sequence[float], Bounds], float]
"""One number from utilities and the bounds they are measured within."""


class Scalarised:
    """Tells `inner` one number an observation: `scalar` of its utilities within the bounds of all seen so far."""

    def __init__(self, inner: Optimizer, scalar: Scalar, shape: tuple[int, int], bounds: Bounds = ()) -> None:
        """`shape` is how many genes and how many objectives there are, `bounds` those of what `inner` knows."""
        self._inner = inner
        self._shape = shape
        self._scalar = scalar
        self._bounds = bounds

    @property
    def generation(self) -> int | None:
        """The inner optimiser's."""
        return self._inner.generation

    def ask(self, count: int) -> list[Genome]:
        """The inner optimiser's points."""
        return self._inner.ask(count)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results, each as one number; all of one call are measured within the same bounds."""
        self._bounds = known_bounds(checked(observations, *self._shape), self._bounds)
        self._inner.tell(reduced(observations, self._scalar, self._bounds))

    def recommend(self) -> list[Genome]:
        """The inner optimiser's."""
        return self._inner.recommend()


def known_bounds(observations: Sequence[Observation], before: Bounds = ()) -> Bounds:
    """Worst and best of each objective, in these observations and before."""
    points = [o.utilities for o in observations if o.utilities is not None]
    return bounds_of([*points, *zip(*before, strict=True)])


def reduced(observations: Sequence[Observation], scalar: Scalar, bounds: Bounds) -> list[Observation]:
    """The observations with one utility each."""
    found = []
    for observation in observations:
        if observation.utilities is not None:
            value = scalar(observation.utilities, bounds)
            observation = observation.model_copy(update={"utilities": (value,), "errors": ()})
        found.append(observation)
    return found
