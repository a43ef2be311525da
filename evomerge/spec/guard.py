"""What learning must not spoil."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from evomerge.fitness import Fitness, Objective
from evomerge.values import Value


class GuardSpec(Value):
    """What merges must still foretell as well as a fixed recipe does, `of` that name, but for a `share`.

    That is a `text`, a file, or the right answers to the questions of a `task`. The share is what the perplexity of
    what is learned may be above that recipe's: the uniform average's, or the base's where there is no such average.
    """

    text: str | None = None
    task: str | None = None
    share: Annotated[float, Field(gt=0, le=10)] = 0.03
    of: str | None = None

    @model_validator(mode="after")
    def _of_one_thing(self) -> Self:
        if (self.text is None) == (self.task is None):
            both = "are both given" if self.text is not None else "are both missing"
            raise ValueError(f"text and task {both}; give one of them: a text file, or a task")
        return self

    def check(self, fitness: Fitness) -> None:
        """See that its task is none that is measured, with items held out; a validator's ValueError otherwise."""
        if self.task is not None and any(use.task == self.task for use in fitness.uses().values()):
            raise ValueError(f"guard.task: {self.task!r} is measured by an objective already; guard another")

    def asked(self, include: tuple[str, ...]) -> Fitness | None:
        """Its task, out of these folders or lm-eval's own, as a fitness that measures it; None if it has a text."""
        return None if self.task is None else Fitness(include=include, objectives={"guard": Objective(task=self.task)})
