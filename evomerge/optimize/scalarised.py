"""Several objectives put to an optimiser of one."""

from collections.abc import Callable, Sequence

from evomerge.optimize import Optimizer
from evomerge.optimize.checks import checked
from evomerge.trial import Observation
from evomerge.values import Genome

Scalar = Callable[[Sequence[float], Sequence[float]], float]
"""One number from utilities and the ideal point they are measured against."""


class Scalarised:
    """Tells `inner` one number an observation: `scalar` of its utilities and of the best of each seen so far."""

    def __init__(self, inner: Optimizer, scalar: Scalar, shape: tuple[int, int], ideal: Sequence[float] = ()) -> None:
        """`shape` is how many genes and how many objectives there are."""
        self._inner = inner
        self._shape = shape
        self._scalar = scalar
        self._ideal = list(ideal)

    @property
    def generation(self) -> int | None:
        """The inner optimiser's."""
        return self._inner.generation

    def ask(self, count: int) -> list[Genome]:
        """The inner optimiser's points."""
        return self._inner.ask(count)

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results, each as one number; all of one call are measured against one ideal point."""
        self._ideal = ideal_of(checked(observations, *self._shape), self._ideal)
        self._inner.tell(reduced(observations, self._scalar, self._ideal))

    def recommend(self) -> list[Genome]:
        """The inner optimiser's."""
        return self._inner.recommend()


def ideal_of(observations: Sequence[Observation], before: Sequence[float] = ()) -> list[float]:
    """The best of each objective, in these observations and before."""
    points = [o.utilities for o in observations if o.utilities is not None] + ([tuple(before)] if before else [])
    return [max(column) for column in zip(*points, strict=True)]


def reduced(observations: Sequence[Observation], scalar: Scalar, ideal: Sequence[float]) -> list[Observation]:
    """The observations with one utility each."""
    found = []
    for observation in observations:
        if observation.utilities is not None:
            value = scalar(observation.utilities, ideal)
            observation = observation.model_copy(update={"utilities": (value,), "errors": ()})
        found.append(observation)
    return found
