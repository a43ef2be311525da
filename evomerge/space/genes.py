"""What a gene is: a named number with a range, moved from the unit interval to its own scale and back."""

from evomerge.errors import SpecError
from evomerge.values import Value

DECIMALS = 6
"""Decimals of a searched number: far below what 16-bit weights can tell apart, and equal recipes are equal bytes."""
TOLERANCE = 10.0**-DECIMALS
"""How far two values may lie apart, or one outside its range, and still count as the same (rounding, not meaning)."""


class Gene(Value):
    """One searched number. `levels` is how many steps its range has; None is a continuum."""

    name: str
    low: float
    high: float
    levels: int | None = None

    def value(self, unit: float) -> float:
        """The number that `unit` in [0, 1] stands for."""
        unit = min(max(unit, 0.0), 1.0)
        if self.levels is not None:
            return self.low + round(unit * self.levels) * ((self.high - self.low) / self.levels)
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
