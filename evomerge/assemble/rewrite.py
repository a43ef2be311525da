"""Experts rewritten by RegMean before a search, once for the same experts and items: kept where caches are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.assemble.means import Listener, factory
from evomerge.assemble.references import imitated
from evomerge.environment import cache_folder
from evomerge.errors import RunError, SpecError
from evomerge.estimate.loss import mean_probabilities
from evomerge.files import is_there, turn
from evomerge.items import ItemTable
from evomerge.space import REGMEAN, fixed_recipes, unchanged
from evomerge.spec import Models, Rewritten, RunSpec
from evomerge.trial import Draw, Failure, Lesson, Scores, Work
from evomerge.values import digest_of

if TYPE_CHECKING:
    from evomerge.evaluate import Evaluator
    from evomerge.score import ScorerFunction

Targets = dict[str, tuple[tuple[float, ...], ...]]
Places = dict[str, tuple[int, ...]]

READ = 256
"""Items of a task that are read, at most: Gram matrices hardly change with more."""
JUDGED = 64
"""Items of a task that the strengths are compared on, at most: where they differ by less, either will do."""
VERSION = 4
"""Of how experts are rewritten: what an older one wrote is not taken for a newer one's."""


def with_rewritten(run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> RunSpec:
    """The run with its experts rewritten by RegMean beside them, if each has an objective of its own.

    Of two strengths of regularisation it is the one with the lower loss on the search items of those objectives. If the
    run starts at RegMean, the rewritten experts are searched over. Items count as if no cache had them read already.

    Raises:
        SpecError: models or tasks cannot be used, or the tasks give no scores.
        RunError: what it takes cannot be written, or the result cannot be scored.
    """
    if not run.models.owned() or run.models.rewritten is not None:
        return run
    if scorer is not None:
        raise SpecError(
            "models.experts: RegMean reads items of tasks, which a scorer of your own has not; leave objective out"
        )
    folders, targets, (before, judged) = _prepared(run, listener)
    listener.say("RegMean: comparing two strengths of regularisation")
    losses = _losses(run, folders, targets, listener)
    eps = min(losses, key=losses.__getitem__)
    told = " and ".join(f"{loss:.4g} at {each:g}" for each, loss in losses.items())
    listener.say(f"RegMean: search loss {told}; experts are rewritten with {eps:g}, in {folders[eps]}")
    written = {name: str(folders[eps] / name) for name in run.models.experts}
    items = before + len(losses) * judged
    rewritten = Rewritten(folders=written, eps=eps, instead=REGMEAN in run.start, items=items)
    return run.model_copy(update={"models": run.models.model_copy(update={"rewritten": rewritten})})


def remarks(run: RunSpec) -> tuple[str, ...]:
    """What a plan says of RegMean: what it took, or that there are experts and no RegMean of them."""
    if run.models.rewritten is not None:
        return (
            f"RegMean has put {run.models.beforehand} search items to models, each a forward pass; they are the first"
            " of the run's item evaluations",
        )
    if len(run.models.experts) < 2 or run.models.owned():
        return ()
    first = next(name for name in run.models.experts if name not in run.models.owners)
    return (
        f"RegMean is left out: {first} has no objective of its own (models.experts.{first}: {{path: ..., objective:"
        " ...})",
    )


def _prepared(run: RunSpec, listener: Listener) -> tuple[dict[float, Path], Targets, tuple[int, int]]:
    """Experts of each strength, what is imitated, and how many items that took and will take."""
    evaluator = factory(run, None, listener).build()  # It is let go of before another one is built.
    return _folders(run, evaluator, listener), _targets(run, evaluator), _counts(run, evaluator.table)


def _counts(run: RunSpec, table: ItemTable) -> tuple[int, int]:
    """Search items that the experts read or are imitated on, and that a strength is judged by."""
    judged = _judged(run, table)
    answered = sum(len(names) * len(judged[task]) for task, names in imitated(run, table).items())
    return _reads(run, table) + answered, table.count("search", judged)


def _read(run: RunSpec, table: ItemTable) -> dict[str, Places]:
    """What each expert reads, by task: the first of the search items of its own tasks."""
    return {name: _first(row, table, READ) for name, row in _owners(run).items()}


def _judged(run: RunSpec, table: ItemTable) -> Places:
    """What the strengths are compared on, by task: the first of the search items of all experts' tasks."""
    return _first(sorted({task for row in _owners(run).values() for task in row}), table, JUDGED)


def _first(tasks: Sequence[str], table: ItemTable, most: int) -> Places:
    return {task: tuple(range(min(most, len(table.tasks[task].search.ids)))) for task in tasks}


def _reads(run: RunSpec, table: ItemTable) -> int:
    return sum(table.count("search", places) for places in _read(run, table).values())


def _folders(run: RunSpec, evaluator: "Evaluator", listener: Listener) -> dict[float, Path]:
    """The rewritten experts of each strength, made if they are not there."""
    from evomerge.regmean import EPS, RegMean

    home = cache_folder() / REGMEAN / _key(run, evaluator)
    folders = {eps: home / f"{eps:g}" for eps in EPS}
    with turn(home, lambda: listener.say("RegMean: another process rewrites the same experts; waiting for it")):
        missing = {eps: folder for eps, folder in folders.items() if not is_there(folder)}
        if missing:
            count = _reads(run, evaluator.table)
            listener.say(f"RegMean: reading {count} search items, without their answers")
            assert evaluator.lessons is not None, "tasks score, not a callable"
            RegMean(evaluator.live, evaluator.lessons, _read(run, evaluator.table)).write(missing)
    return folders


def _key(run: RunSpec, evaluator: "Evaluator") -> str:
    """What decides how the experts are rewritten, short."""
    parents, tasks = evaluator.parents, evaluator.table.tasks
    read = {
        name: [tasks[task].search.requests[: len(places)] for task, places in row.items()]
        for name, row in _read(run, evaluator.table).items()
    }
    contents = {name: parent.content() for name, parent in parents.models.items()}
    known = {"version": VERSION, "models": contents, "read": read, "lender": parents.template, "dtype": parents.dtype}
    return digest_of(known).removeprefix("sha256:")[:32]


def _owners(run: RunSpec) -> dict[str, tuple[str, ...]]:
    return {name: run.fitness.owned(run.models.owners[name]) for name in run.models.experts}


def _targets(run: RunSpec, evaluator: "Evaluator") -> Targets:
    """What experts answer to search items of tasks in which they are imitated."""
    found: dict[str, tuple[tuple[float, ...], ...]] = {}
    judged = _judged(run, evaluator.table)
    for task, names in imitated(run, evaluator.table).items():
        places = {task: judged[task]}
        answers = [_answers(evaluator, name, Draw(pool="search", places=places))[task] for name in names]
        found[task] = tuple(map(mean_probabilities, zip(*answers, strict=True)))
    return found


def _answers(evaluator: "Evaluator", name: str, draw: Draw) -> Scores:
    recipe = unchanged(evaluator.parents, name)
    back = evaluator(Work(id=0, number=0, recipe=recipe, draw=draw, purpose="reference", scored=True))
    if isinstance(back.outcome, Failure):
        raise back.outcome.error(name)
    return back.scores or {}


def _losses(run: RunSpec, folders: Mapping[float, Path], targets: Targets, listener: Listener) -> dict[float, float]:
    """What experts of each strength lose at equal weights, on average over objectives and their search items."""
    names = {eps: tuple(f"{name} {place}" for name in run.models.experts) for place, eps in enumerate(folders)}
    experts = {
        called: str(folders[eps] / name)
        for eps, row in names.items()
        for called, name in zip(row, run.models.experts, strict=True)
    }
    models = Models(base=run.models.base, trust_remote_code=run.models.trust_remote_code, experts=dict(experts))
    evaluator = factory(run.model_copy(update={"models": models}), None, listener).build()
    return {eps: _loss(run, evaluator, targets, row) for eps, row in names.items()}


def _loss(run: RunSpec, evaluator: "Evaluator", targets: Targets, experts: tuple[str, ...]) -> float:
    parents = evaluator.parents.with_rewritten(experts, instead=True)
    recipe = fixed_recipes(parents)[REGMEAN]
    work = Work(
        id=0,
        number=0,
        recipe=recipe,
        draw=Draw(pool="search", places=_judged(run, evaluator.table)),
        purpose="gradient",
        lesson=Lesson(weights={}, targets=targets),
    )
    found = evaluator(work)
    if isinstance(found.outcome, Failure) or found.learnt is None:
        raise RunError("RegMean gives a model without finite numbers; leave objective out of models.experts")
    means = {task: sum(losses) / len(losses) for task, losses in found.learnt.losses.items()}
    return sum(means.values()) / len(means)
