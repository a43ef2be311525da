"""What takes no search: planning one, merging a recipe, scoring a model."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evomerge.assemble.choose import choose, with_defaults
from evomerge.assemble.experts import read_recipe
from evomerge.assemble.learn import guarded, planned_learning
from evomerge.assemble.means import QUIET, Listener, factory
from evomerge.assemble.rewrite import remarks, with_rewritten
from evomerge.assemble.run import check_calibration
from evomerge.assemble.start import starting_points, wanted_genomes
from evomerge.assemble.told import with_told
from evomerge.errors import SpecError
from evomerge.estimate import Grader
from evomerge.files import is_file, is_there
from evomerge.fitness import Fitness
from evomerge.items import POOLS, PoolName
from evomerge.recipe import BASE, Folder, Parent, Parents, Recipe
from evomerge.space import bind, unchanged
from evomerge.spec import Models, RunSpec, gradient_of, read_yaml
from evomerge.trial import Draw

if TYPE_CHECKING:
    from evomerge.checkpoint import ParentFiles, Source, Terms
    from evomerge.plan import Plan


def plan(run: RunSpec, where: Path, later: Callable[[Parents], Sequence[str]], *, listener: Listener) -> "Plan":
    """Everything short of searching: open, check, load, and measure one candidate.

    `where` is the folder whose disk the run will fill, `later` says what there is to note about what comes after it.

    Raises:
        SpecError: whatever `search` would fail on.
    """
    from evomerge.export import check_exportable
    from evomerge.plan import make_plan, probe

    run = with_rewritten(run, None, listener)
    evaluator = factory(run, None, listener).build()
    parents = evaluator.live.files.parents
    space = bind(run.space, parents)
    choice = choose(run, parents, evaluator.table)
    resolved = with_defaults(run, choice.optimizer, parents, evaluator.table)
    run = with_told(resolved, evaluator.table, len(space.genes))
    check_calibration(run, evaluator.table)
    guarded(run, parents)
    check_exportable(space.decode(probe(space)), evaluator.live.files)
    start = starting_points(wanted_genomes(run, space, parents), space, parents)
    notes = (*later(parents), *remarks(run))
    listener.say("measuring one candidate")
    if run.executor.apart:
        notes = (*notes, "measured in this process; workers on Ray divide the time, and each takes the memory")
    seeds, outside = tuple(start.seeds.values()), tuple(start.outside)
    made = make_plan(run, evaluator, space, seeds=seeds, outside=outside, where=where)
    learned = planned_learning(run, evaluator, len(seeds) + len(outside)) if gradient_of(run.chosen) else None
    if choice.why is not None and learned is not None and learned.grain is None:
        notes = (*notes, f"{learned.coefficients} weights are learned, as the space has genes; space: learned is finer")
    seconds, size = (learned.steps * learned.seconds, learned.run_bytes) if learned is not None else (0.0, 0)
    changes: dict[str, Any] = {"search_seconds": made.search_seconds + seconds, "run_bytes": made.run_bytes + size}
    changes |= {"notes": (*made.notes, *notes), "learning": learned, "why": choice.why}
    return made.model_copy(update=changes)


def merge(
    recipe: Path | Recipe, out: Path, *, force: bool = False, trusted: bool = False, listener: Listener = QUIET
) -> Recipe:
    """Merge a recipe, ours or mergekit's, to a model folder.

    Code that comes with the models is run only if it is `trusted`.

    Raises:
        SpecError: the recipe or its models cannot be used, or `out` exists.
        RunError: the disk is full, a weight is not finite, or something came to be at `out` meanwhile.
    """
    from evomerge.export import export_recipe, export_target

    target = export_target(out, force=force)
    found, files = open_recipe(recipe, listener, trusted=trusted)
    listener.say(f"merging {files.anatomy.parameters:,} weights")
    for remark in export_recipe(found, files, target):
        listener.say(remark)
    return found


def score(
    model: Path,
    fitness: Fitness,
    *,
    items: PoolName | Literal["all"] = "confirm",
    trusted: bool = False,
    listener: Listener = QUIET,
) -> dict[str, Any]:
    """Score a model folder or a recipe on a fitness: values with standard errors, and how many items they rest on.

    Code that comes with the models is run only if it is `trusted`.

    Raises:
        SpecError: the model or a task cannot be used, or there are no such items.
    """
    from evomerge.device import choose_device
    from evomerge.evaluate import EvaluatorFactory

    pools = [pool for pool in POOLS if items in (pool, "all") and (pool != "report" or fitness.items.report)]
    if not pools:
        raise SpecError("--items report: the fitness keeps no report items; set items.report, or choose other items")
    if not is_file(model) and model.suffix not in (".yaml", ".yml"):
        source = str(model.absolute()) if is_there(model) else str(model)
        named = Models(experts={"model": source}, trust_remote_code=trusted)
        files = opened(named, 0, listener, called=lambda _: "MODEL")
        recipe = unchanged(files.parents, "model")
    else:
        recipe, files = open_recipe(model, listener, trusted=trusted)
    models = Models(base=None, experts={"model": str(model)})
    evaluator = EvaluatorFactory(models, fitness, 0, progress=listener.say).over(files, choose_device("auto"))
    listener.say("scoring")
    table = evaluator.table
    grader = Grader(fitness, table)
    marks = {pool: evaluator.marks(recipe, Draw(pool=pool)) for pool in pools}
    values = (
        grader.values(marks[pools[0]], Draw(pool=pools[0])) if len(pools) == 1 else grader.joined(list(marks.values()))
    )
    counts = {name: sum(len(task.pool(pool).ids) for pool in pools) for name, task in table.tasks.items()}
    return {"objectives": {label: list(pair) for label, pair in values.items()}, "items": counts}


def open_recipe(recipe: Path | Recipe, listener: Listener, *, trusted: bool = False) -> tuple[Recipe, "ParentFiles"]:
    """A recipe, ours or mergekit's, and its parents opened and checked; `trusted` is their code.

    Raises:
        SpecError: the recipe is not understood, or a parent is not what it was.
    """
    if not isinstance(recipe, Path):
        return _matched(recipe, listener, trusted)
    from evomerge.export import is_mergekit

    try:
        if is_mergekit(read_yaml(recipe)):
            return _open_mergekit(recipe, listener, trusted)
        return _matched(read_recipe(recipe), listener, trusted)
    except SpecError as error:
        text = str(error)
        raise SpecError(text if text.startswith(str(recipe)) else f"{recipe}: {text}") from None


def _matched(recipe: Recipe, listener: Listener, trusted: bool) -> tuple[Recipe, "ParentFiles"]:
    """The recipe over its own models, opened and seen to be those it was written for."""
    from evomerge.checkpoint import Shares, Terms

    base, names = _named(recipe)
    written = {new: f"parents.{old}" for old, new in names.items()}
    sources = {new: _source(recipe.parents[old]) for old, new in names.items()}
    source = sources.pop(names[base]) if base is not None else None
    # A recipe's models may have any names, and it may be of the base alone.
    terms = Terms(names[recipe.template], written.__getitem__, trusted)
    files = _opened((source, sources), recipe.seed, listener, terms)
    for name, parent in recipe.parents.items():
        now = files.parents.models[names[name]].content()
        if isinstance(parent, Folder) and parent.digest not in (None, now):
            raise SpecError(
                f"parents.{name}: {parent.shown()} is not the model this recipe was written for (digests differ)"
            )
    found = recipe.over(files.parents, names)
    Shares(found, files.anatomy)  # It refuses weights that do not fit.
    return found, files


def _source(parent: Parent) -> "Source":
    """What a model of a recipe is opened by."""
    return parent if isinstance(parent, Recipe) or parent.base is not None else parent.shown()


def _named(recipe: Recipe) -> tuple[str | None, dict[str, str]]:
    """The recipe's base, and names for its models, the base first: `base` for the base and for no other."""
    bases = sorted({blend.base.parent for blend in recipe.blends() if blend.base is not None})
    if len(bases) > 1:
        raise SpecError(f"its blends have different bases, {' and '.join(bases)}; give all of them the same")
    base = bases[0] if bases else BASE if recipe.template == BASE else None
    free = next(name for i in count(2) if (name := f"{BASE} {i}") not in recipe.parents)
    others = {name: free if name == BASE else name for name in recipe.parents if name != base}
    return base, {**({base: BASE} if base is not None else {}), **others}


def _open_mergekit(path: Path, listener: Listener, trusted: bool) -> tuple[Recipe, "ParentFiles"]:
    from evomerge.export import from_mergekit, mergekit_models, read_mergekit

    found, where = read_mergekit(read_yaml(path), str(path)), path.absolute().parent
    models = mergekit_models(found, where).model_copy(update={"trust_remote_code": trusted})
    files = opened(models, 0, listener, called=lambda name: f"model {name}")
    return from_mergekit(found, where, files), files


def opened(
    models: Models, seed: int, listener: Listener, *, called: Callable[[str], str] | None = None
) -> "ParentFiles":
    """Models of a run file, opened; `called` says where the user named one."""
    from evomerge.checkpoint import Terms, in_run_file

    terms = Terms(models.template, called or in_run_file, models.trust_remote_code)
    return _opened((models.base, models.sources()), seed, listener, terms)


def _opened(
    sources: "tuple[Source | None, Mapping[str, Source]]",
    seed: int,
    listener: Listener,
    terms: "Terms",
) -> "ParentFiles":
    """The base and the experts, opened."""
    from evomerge.checkpoint import open_parents

    listener.say("checking parents")
    base, experts = sources
    return open_parents(base, experts, seed, listener.say, terms)
