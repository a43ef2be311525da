"""The values of mergekit's parameters: a number, a gradient over the layers of a slice, or either by filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from evomerge.errors import SpecError
from evomerge.limits import Weight

Number: TypeAlias = float | bool
_NUMBER: TypeAdapter[float] = TypeAdapter(Annotated[Weight, Field(allow_inf_nan=False)])
_SWITCH: TypeAdapter[bool] = TypeAdapter(bool)


@dataclass(frozen=True)
class Setting:
    """What a parameter is, for tensors whose name contains a text (None: for all others): one value, or a gradient."""

    entries: tuple[tuple[str | None, tuple[Number, ...]], ...]

    def at(self, tensor: str, depth: float) -> Number | None:
        """The value for a tensor at a `depth` from 0 to 1 of its slice; None if no filter fits."""
        for text, values in self.entries:
            if text in (None, "*") or (text is not None and text in tensor):
                return _between(values, depth)
        return None


def setting_of(plain: Any, *, switch: bool, where: str) -> Setting:
    """A parameter as it was written, of numbers or, for a `switch`, of true and false.

    Raises:
        SpecError: it is none.
    """
    listed = plain if isinstance(plain, list) else [plain]
    if not listed:
        raise SpecError(f"{where} is empty; give a value")
    filtered = [isinstance(entry, dict) for entry in listed]
    if not all(filtered):
        if any(filtered):
            raise SpecError(f"{where} mixes values and filters; give one or the other")
        return Setting(((None, _values(plain, switch, where)),))
    return Setting(tuple(_filtered(entry, switch, f"{where}.{place}") for place, entry in enumerate(listed)))


def _filtered(entry: dict[str, Any], switch: bool, where: str) -> tuple[str | None, tuple[Number, ...]]:
    odd = next((key for key in entry if key not in ("value", "filter")), None)
    if odd is not None:
        raise SpecError(f"{where}.{odd} is not a key here; give filter and value")
    if "value" not in entry:
        raise SpecError(f"{where}.value is missing; write it")
    text = entry.get("filter")
    if text is not None and not isinstance(text, str):
        raise SpecError(f"{where}.filter is {text!r}; give part of a tensor's name")
    return text, _values(entry["value"], switch, f"{where}.value")


def _values(plain: Any, switch: bool, where: str) -> tuple[Number, ...]:
    adapter: TypeAdapter[Any] = _SWITCH if switch else _NUMBER
    values = plain if isinstance(plain, list) else [plain]
    if not values:
        raise SpecError(f"{where} is empty; give a value")
    try:
        return tuple(adapter.validate_python(value) for value in values)
    except ValidationError:
        wanted = "true or false" if switch else "a number from -1,000,000 to 1,000,000"
        raise SpecError(f"{where} is {str(plain)[:60]}; give {wanted}, or a list of such") from None


def _between(values: Sequence[Number], depth: float) -> Number:
    """mergekit's gradient: numbers are interpolated, switches go by steps."""
    position = depth * (len(values) - 1)
    low = int(position)
    if isinstance(values[0], bool):
        return values[low]
    high, share = min(low + 1, len(values) - 1), position - low
    return (1 - share) * values[low] + share * values[high]
