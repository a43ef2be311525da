"""The side files of recipes that a journal names, kept in the run folder by what is in them."""

import os
from pathlib import Path

from evomerge.arrays import SUFFIX
from evomerge.errors import RunError, SpecError
from evomerge.events import Asked, Event
from evomerge.files import sync
from evomerge.recipe import Coefficients, Recipe

FOLDER = "coefficients"


class SideFiles:
    """Merge coefficients of a run's candidates, each file there as a whole or not at all."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def keep(self, coefficients: Coefficients) -> None:
        """Write a side file; it is on disk when this returns, and the event that names it must follow.

        Raises:
            RunError: the disk is full or failing.
        """
        path = self._path(coefficients.digest())
        fresh = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(exist_ok=True)
            with fresh.open("wb") as file:
                file.write(coefficients.content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            sync(path.parent)
            sync(self._run)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error.strerror}); make room, then go on with: evomerge resume {self._run}"
            ) from None

    def placed(self, recipe: Recipe) -> Recipe:
        """A recipe as the journal has it, with its side file where it lies, if it has one."""
        if recipe.arrays is None:
            return recipe
        path = str(self._path(recipe.arrays.digest).absolute())
        return recipe.model_copy(update={"arrays": recipe.arrays.model_copy(update={"path": path})})

    def read(self, recipe: Recipe) -> Coefficients | None:
        """What the side file of a recipe of the journal holds, if it has one.

        Raises:
            SpecError: it is missing, or was changed.
        """
        placed = self.placed(recipe)
        return None if placed.arrays is None else Coefficients.read(placed.arrays)

    def check(self, event: Event, line: int) -> None:
        """See that the side file which a line of the journal names is there and whole.

        Raises:
            SpecError: it is not.
        """
        if isinstance(event, Asked) and event.recipe is not None:
            try:
                self.read(event.recipe)
            except SpecError as error:
                raise SpecError(f"line {line} of the journal: {error}") from None

    def _path(self, digest: str) -> Path:
        return self._run / FOLDER / f"{digest.removeprefix('sha256:')}{SUFFIX}"
