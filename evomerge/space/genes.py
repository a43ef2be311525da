"""What a gene is: a named number with a range, moved from the unit interval to its own scale and back."""

from typing import Literal, TypeAlias, assert_never

from pydantic import model_validator

from evomerge.errors import SpecError
from evomerge.values import Value

DECIMALS = 6
"""Decimals of a searched number: far below what 16-bit weights can tell apart, and equal recipes are equal bytes."""
TOLERANCE = 10.0**-DECIMALS
"""How far two values may lie apart, or one outside its range, and still count as the same (rounding, not meaning)."""
GeneKind: TypeAlias = Literal["real", "integer", "binary", "categorical"]


class Gene(Value):
    """One searched number. `levels` is how many steps its range has; None is a continuum.

    `kind` is what the optimisers take it for. An integer has neighbours, a category has none, a binary gene is 0 or 1;
    a real one may have steps all the same, too fine to be searched one by one.
    """

    name: str
    low: float
    high: float
    levels: int | None = None
    kind: GeneKind = "real"

    @model_validator(mode="after")
    def _checked(self) -> "Gene":
        if not self.low < self.high:
            raise ValueError(f"{self.name}: the range from {self.low:g} to {self.high:g} is empty")
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"{self.name}: {self.levels} levels; a gene with steps has at least one")
        if self.kind == "binary" and (self.low, self.high, self.levels) != (0, 1, 1):
            raise ValueError(f"{self.name}: a binary gene goes from 0 to 1 in one step")
        if self.discrete and not (self.levels and self.low.is_integer() and (self._step(self.levels)).is_integer()):
            raise ValueError(f"{self.name}: levels of kind {self.kind} are whole numbers; give low, high and levels so")
        return self

    @property
    def discrete(self) -> bool:
        """Whether there is nothing between two of its levels."""
        match self.kind:
            case "real":
                return False
            case "integer" | "binary" | "categorical":
                return True
            case _:
                assert_never(self.kind)

    @property
    def ordered(self) -> bool:
        """Whether a level is nearer to some of the others than to the rest; of two levels none is."""
        match self.kind:
            case "real" | "integer":
                return True
            case "binary" | "categorical":
                return False
            case _:
                assert_never(self.kind)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The units between one level and the next, rising; none for a real gene."""
        if not self.discrete or self.levels is None:
            return ()
        return tuple((level + 0.5) / self.levels for level in range(self.levels))

    def value(self, unit: float) -> float:
        """The number that `unit` in [0, 1] stands for."""
        unit = min(max(unit, 0.0), 1.0)
        if self.levels is not None:
            return self.low + round(unit * self.levels) * self._step(self.levels)
        return round(self.low + unit * (self.high - self.low), DECIMALS)

    def unit(self, value: float) -> float:
        """The point of [0, 1] that stands for `value`.

        Raises:
            SpecError: `value` lies outside the gene's range.
        """
        unit = (value - self.low) / (self.high - self.low)
        if not -TOLERANCE <= unit <= 1 + TOLERANCE:
            raise SpecError(f"{self.name} is {value:g}; the space allows {self.low:g} to {self.high:g}")
        return min(max(unit, 0.0), 1.0)

    def level(self, unit: float) -> int:
        """Which level of a discrete gene `unit` in [0, 1] stands for, counted from 0.

        Raises:
            ValueError: the gene is real.
        """
        if not self.discrete or self.levels is None:
            raise ValueError(f"{self.name} is real, it has no levels")
        return round(min(max(unit, 0.0), 1.0) * self.levels)

    def snapped(self, unit: float) -> float:
        """The one unit that all of a level share; a real gene's own."""
        return self.level(unit) / self.levels if self.discrete and self.levels is not None else unit

    def _step(self, levels: int) -> float:
        return (self.high - self.low) / levels
