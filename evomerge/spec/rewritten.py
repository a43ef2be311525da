"""Experts that RegMean rewrote before a run, as the run file has them."""

from typing import Annotated, TypeAlias

from pydantic import Field

from evomerge.limits import Name
from evomerge.space import REGMEAN
from evomerge.values import Value

ExpertName: TypeAlias = Annotated[Name, Field(pattern=r"^[\w -]+$")]


class Rewritten(Value):
    """Experts rewritten by RegMean: folders by expert, the eps they were made with.

    They may be what is searched over, `instead` of the experts as they are. `items` counts the search items that were
    put to models for it, which are part of the run's item evaluations.
    """

    folders: dict[ExpertName, str]
    eps: float
    instead: bool = False
    items: Annotated[int, Field(ge=0)] = 0

    def sources(self) -> dict[str, str]:
        """The folders by the names that they have as models."""
        return {f"{name} {REGMEAN}": folder for name, folder in self.folders.items()}
