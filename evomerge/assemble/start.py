"""Where a search begins: what the user asks for, then the fixed recipes that its space can express."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from evomerge.assemble.experts import read_recipe
from evomerge.assemble.folders import run_folder
from evomerge.errors import SpecError
from evomerge.files import is_file
from evomerge.recipe import Folder, Parent, Parents, Recipe
from evomerge.results import Results
from evomerge.space import REGMEAN, SearchSpace, fixed_recipes, folded, names_for
from evomerge.spec import RunSpec, is_run
from evomerge.values import Genome


@dataclass(frozen=True)
class Start:
    """Genomes to begin with, named where they are fixed recipes, and the fixed recipes outside the space."""

    seeds: Mapping[Genome, str | None]
    outside: Mapping[str, Recipe]


def wanted_genomes(
    run: RunSpec, space: SearchSpace, parents: Parents, kept: Mapping[str, Recipe] = MappingProxyType({})
) -> tuple[Genome, ...]:
    """What the run file's `start` says to begin with, then what a stage before has `kept` for that.

    Raises:
        SpecError: an entry is not a recipe or a run, or is not in the space.
    """
    by_tensor = bool(names_for(run.space, parents).tensors)

    def genome(recipe: Recipe) -> Genome:
        return space.encode(recipe if by_tensor else folded(recipe, parents.tensors))

    found = []
    for entry in run.start:
        named = [fixed_recipes(parents)[REGMEAN]] if entry == REGMEAN else _recipes(Path(entry), parents)
        for recipe in named:
            try:
                found.append(genome(recipe))
            except SpecError as error:
                raise SpecError(
                    f"start: {entry} is not in the space ({error}); take it out, or widen the space"
                ) from None
    for name, recipe in kept.items():
        try:
            found.append(genome(_over(parents, recipe)))
        except SpecError as error:
            raise SpecError(
                f"parents: {name}, which this stage begins with, is not in its space ({error}); widen the space, or"
                " have it merged as one more parent (parents: all)"
            ) from None
    return tuple(dict.fromkeys(found))


def starting_points(wanted: Iterable[Genome], space: SearchSpace, parents: Parents) -> Start:
    """The prior design of a run: the parents, whose answers all estimates lean on, what is wanted, fixed recipes, and
    what else the space knows to be worth a try."""
    named: dict[Genome, str] = {}
    outside = {}
    for name, recipe in fixed_recipes(parents).items():
        try:
            named.setdefault(space.encode(recipe), name)
        except SpecError:
            outside[name] = recipe
    first = [genome for genome, name in named.items() if name in parents.names]
    seeds = {genome: named.get(genome) for genome in (*first, *wanted, *named, *space.priors())}
    return Start(seeds, outside)


def _recipes(path: Path, parents: Parents) -> list[Recipe]:
    """The recipe in a file, or the best and the front of a run, over this run's parents."""
    if is_run(path):
        results = Results.load(run_folder(path))
        rows = [*([results.best] if results.best else []), *results.front]
        found = [results.recipe(number) for number in dict.fromkeys(row.number for row in rows)]
    elif is_file(path):
        found = [read_recipe(path)]
    else:
        raise SpecError(f"start: {path} is neither a recipe file nor a run folder")
    try:
        return [_over(parents, recipe) for recipe in found]
    except SpecError as error:
        raise SpecError(f"start: {path}: {error}") from None


def _over(parents: Parents, recipe: Recipe) -> Recipe:
    """The recipe with this run's names for the same models: by content, or by place where it says no digest."""
    recipe = recipe.only_used()
    known = {key: name for name, parent in parents.models.items() for key in (_place(parent), parent.content())}
    names = {}
    for name, parent in recipe.parents.items():
        key = parent.content() or _place(parent)
        if key is None or key not in known:
            raise SpecError(f"merges {name!r} ({parent.shown()}), which is not among this run's models; leave it out")
        names[name] = known[key]
    return recipe.over(parents, names)


def _place(parent: Parent) -> Path | None:
    """Where a folder lies; a hub id is no place."""
    return Path(parent.path).resolve() if isinstance(parent, Folder) and parent.hub is None else None
