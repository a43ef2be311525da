"""The folder of a run in stages, in which each stage has a run folder of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from evomerge.errors import SpecError
from evomerge.files import is_file, new_folder
from evomerge.recipe import Recipe
from evomerge.spec import SPEC, STAGES, StagedSpec, parse, read_yaml
from evomerge.store import RunStore, SideFiles, StageOf, digest
from evomerge.values import Value


class StagedFile(Value):
    """`stages.yaml`: all that changes the searches, defaults written out."""

    format: Literal[1] = 1
    evomerge: str
    spec: StagedSpec
    scorer: str | None = None


@dataclass(frozen=True)
class StagedRun:
    """A run in stages on disk: what is to be done, and a run folder for every stage that has begun."""

    folder: Path
    file: StagedFile

    @classmethod
    def create(cls, folder: Path, file: StagedFile) -> "StagedRun":
        """A new one.

        Raises:
            SpecError: the folder exists and is not empty.
            RunError: it cannot be written.
        """
        text = yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with new_folder(RunStore.target(folder)) as fresh:
            (fresh / STAGES).write_bytes(text.encode())
            experts = file.spec.models.experts.values()
            SideFiles(fresh).keep_of([expert for expert in experts if isinstance(expert, Recipe)])
        return cls(folder, file)

    @classmethod
    def load(cls, folder: Path) -> "StagedRun":
        """One that is there.

        Raises:
            SpecError: its file is not understood.
        """
        path = folder / STAGES
        plain = read_yaml(path)
        if plain.get("format") != 1:
            raise SpecError(f"{path}: format is {plain.get('format')}, this evomerge reads 1; use a newer evomerge")
        file = parse(StagedFile, plain, str(path))
        spec = file.spec.model_copy(update={"models": SideFiles(folder).placed_among(file.spec.models)})
        return cls(folder, file.model_copy(update={"spec": spec}))

    @property
    def count(self) -> int:
        """How many stages there are to be."""
        return len(self.file.spec.stages)

    @property
    def begun(self) -> int:
        """How many stages have begun. Folders of those before the last one may have been deleted."""
        return max((place + 1 for place in range(self.count) if (self.stage(place) / SPEC).is_file()), default=0)

    def stage(self, place: int) -> Path:
        """The run folder of a stage (from 0)."""
        number, name = str(place + 1), self.file.spec.names[place]
        return self.folder / (number if name == number else f"{number}-{name}")

    def tie(self, place: int) -> StageOf:
        """What the run of a stage (from 0) remembers of the whole."""
        return StageOf(digest=digest((self.folder / STAGES).read_bytes()), folder=self.stage(place).name)


def is_staged(folder: Path) -> bool:
    """Whether a folder is that of a run in stages."""
    return is_file(folder / STAGES)


def run_folder(folder: Path) -> Path:
    """The run folder that is meant by a folder: of a run in stages the last one that has begun.

    Raises:
        SpecError: none has.
    """
    if not is_staged(folder):
        return folder
    staged = StagedRun.load(folder)
    if not staged.begun:
        raise SpecError(f"{folder}: none of its stages has begun; go on with: evomerge resume {folder}")
    return staged.stage(staged.begun - 1)
