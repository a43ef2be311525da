"""The side files of a run's recipes, kept in its folder by what is in them."""

from collections.abc import Iterable
from pathlib import Path

from evomerge.arrays import SUFFIX
from evomerge.errors import SpecError
from evomerge.events import Asked, Event
from evomerge.recipe import Arrays, Coefficients, Parent, Recipe
from evomerge.spec import Models
from evomerge.store.files import RunFile
from evomerge.store.whole import write_whole

FOLDER = "coefficients"


class SideFiles:
    """Merge coefficients of candidates and of recipes among the models, each file there as a whole or not at all."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def keep(self, coefficients: Coefficients) -> None:
        """Write a side file; it is on disk when this returns, and the event that names it must follow.

        Raises:
            RunError: the disk is full or failing.
        """
        write_whole(self._run, FOLDER, self._path(coefficients.digest()).name, coefficients.content)

    def keep_of(self, models: Iterable[Parent]) -> None:
        """Write copies of the side files of recipes among models, so that theirs may be deleted.

        Raises:
            SpecError: one cannot be read, or was changed.
            RunError: the disk is full or failing.
        """
        for arrays in (arrays for model in models for arrays in model.side_files()):
            self.keep(Coefficients.read(arrays))

    def placed(self, recipe: Recipe) -> Recipe:
        """A recipe as the run has it, with its side files where they lie."""
        return recipe.with_side_files(self._place)

    def placed_in(self, file: RunFile) -> RunFile:
        """The file of the run, with the side files of recipes among its models where they lie."""
        models = {name: model.with_side_files(self._place) for name, model in file.parents.models.items()}
        spec = file.spec.model_copy(update={"models": self.placed_among(file.spec.models)})
        return file.model_copy(update={"spec": spec, "parents": file.parents.model_copy(update={"models": models})})

    def placed_among(self, models: Models) -> Models:
        """Models to merge, with the side files of recipes among them where they lie."""
        experts = {name: self.placed(it) if isinstance(it, Recipe) else it for name, it in models.experts.items()}
        return models.model_copy(update={"experts": experts})

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

    def _place(self, arrays: Arrays) -> str:
        return str(self._path(arrays.digest).absolute())

    def _path(self, digest: str) -> Path:
        return self._run / FOLDER / f"{digest.removeprefix('sha256:')}{SUFFIX}"
