"""Recipes that a run file names among its experts, read: of files, and of other runs."""

from collections.abc import Callable
from pathlib import Path

from evomerge.assemble.folders import run_folder
from evomerge.errors import SpecError
from evomerge.files import is_there
from evomerge.recipe import Recipe
from evomerge.results import Results
from evomerge.spec import YAML, Models, anchored_recipe, is_run, parse, read_yaml, split_pick


def with_recipes(models: Models, say: Callable[[str], None]) -> Models:
    """The models with recipes in place of the files and runs that hold them, which are not needed any more then.

    Raises:
        SpecError: there is no such recipe, or the base is one.
    """
    base = models.base
    if isinstance(base, Recipe):
        raise SpecError("models.base: it is a recipe, as in a stage along a path; give a folder or a hub id")
    if base is not None and (base.endswith(YAML) or is_run(Path(split_pick(base)[0]))):
        raise SpecError(
            f"models.base: {base} is a recipe or a run, and the base is a folder or a hub id; export it, and name that"
        )
    experts = {
        name: source if isinstance(source, Recipe) else _read(source, f"models.experts.{name}", say)
        for name, source in models.experts.items()
    }
    return models.model_copy(update={"experts": experts})


def read_recipe(path: Path) -> Recipe:
    """A recipe file of ours; paths of parents are relative to it.

    Raises:
        SpecError: it is not understood.
    """
    return parse(Recipe, anchored_recipe(read_yaml(path), path.absolute().parent), str(path))


def _read(source: str, field: str, say: Callable[[str], None]) -> str | Recipe:
    """The recipe that a file or a run holds; the name itself of anything else."""
    named, pick = split_pick(source)
    try:
        if is_run(Path(named)):
            return _picked(Path(named), pick or "best", say)
        if source.endswith(YAML):
            return _in_file(Path(source))
    except SpecError as error:
        raise SpecError(f"{field}: {error}") from None
    if source.startswith("/") and "@" in source and not is_there(source):
        raise SpecError(
            f"{field}: there is no run {source.rpartition('@')[0]}, nor a folder {source}; give one of both"
        )
    return source


def _in_file(path: Path) -> Recipe:
    if "merge_method" in read_yaml(path):
        raise SpecError(
            f"{path} is a mergekit configuration; make a folder of it (evomerge merge {path} --out DIR), and name that"
        )
    return read_recipe(path).only_used()


def _picked(run: Path, pick: str, say: Callable[[str], None]) -> Recipe:
    """A candidate's recipe, by `--pick`'s words."""
    results = Results.load(run_folder(run))
    try:
        row = results.pick(pick)
    except SpecError as error:
        raise SpecError(f"{run}: {error}") from None
    if row.confirmed is None:
        say(f"{run}: candidate {row.number} is not confirmed on held-out items; it was chosen by optimistic values")
    return results.recipe(row.number).only_used()
