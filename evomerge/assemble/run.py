"""Searches, from a run file to confirmed results, and on from where they were stopped."""

import contextlib
import importlib.metadata
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.assemble.start import Start, starting_points, wanted_genomes
from evomerge.confirm import confirm
from evomerge.errors import EvomergeError, Interrupted, RunError, SpecError
from evomerge.estimate.calibration import read_calibration
from evomerge.events import Closed, Extended, Opened
from evomerge.items import ItemTable
from evomerge.optimize.build import Build, block, resolve
from evomerge.recipe import Parents
from evomerge.results import FINALISTS, Results
from evomerge.schedule import Draws, Policy, hop_order
from evomerge.session import Interruptible, Session, Watch
from evomerge.space import bind
from evomerge.spec import Budget, RunSpec
from evomerge.store import RunFile, RunStore
from evomerge.study import Parts, Study
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.evaluate import Evaluator, EvaluatorFactory
    from evomerge.score import ScorerFunction

LIBRARIES = ("torch", "transformers", "lm-eval", "cma", "pymoo", "optuna", "numpy", "safetensors")


@dataclass(frozen=True)
class Listener:
    """Who wants to know how it goes: one-line remarks, a call after every result, the name of a stage that begins."""

    say: Callable[[str], None] = lambda _: None
    watch: Watch = lambda *_: None
    enter: Callable[[str], None] = lambda _: None


QUIET = Listener()


@dataclass(frozen=True)
class Prepared:
    """A search that can begin: all it needs was opened and checked."""

    file: RunFile
    evaluator: "Evaluator"
    start: Start


def prepare(run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> Prepared:
    """Open and check everything that a search needs, writing nothing.

    Raises:
        SpecError: the models or the tasks cannot be used.
    """
    from evomerge.export import check_exportable
    from evomerge.plan import probe

    evaluator = factory(run, scorer, listener).build()
    parents = evaluator.live.files.parents
    resolved = with_defaults(run, parents)
    check_calibration(run, evaluator.table)
    space = bind(run.space, parents)
    check_exportable(space.decode(probe(space)), evaluator.live.files)
    wanted = wanted_genomes(run, space, parents)
    start = starting_points(wanted, space, parents)
    file = RunFile(evomerge=__version__, spec=resolved, parents=parents, start=wanted, scorer=name_of(scorer))
    return Prepared(file, evaluator, start)


def begin(prepared: Prepared, out: Path, listener: Listener) -> Results:
    """Run a search that is prepared from its beginning to its confirmed results, in a folder of its own.

    Raises:
        SpecError: `out` exists.
        Interrupted: after Ctrl-C or SIGTERM; `resume` goes on.
        RunError: the run cannot go on.
    """
    store = RunStore.create(out, prepared.file, prepared.evaluator.table)
    try:
        session = _opened(store, prepared.evaluator, prepared.file.spec.budget, listener)
        return _finished(session, _study(session, prepared.start, listener))
    finally:
        store.close()


def resume(
    out: Path,
    *,
    budget: Budget | None = None,
    device: str | None = None,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Go on with a run where it was, perhaps with another budget or on another device.

    Raises:
        SpecError: the folder holds no run, or its models or tasks have changed since.
        Interrupted: after Ctrl-C or SIGTERM.
        RunError: the run cannot go on.
    """
    store = RunStore(out, write=True)
    try:
        found = Results(store)
        _check_scorer(store, scorer)
        _check_budget(found, budget)
        if found.status == "finished" and budget in (None, found.state.budget):
            listener.say(f"{out} is finished; a larger budget extends it")
            return found
        evaluator = _reopened_evaluator(store, scorer, listener, device)
        session = _opened(store, evaluator, budget, listener)
        space = bind(store.file.spec.space, store.file.parents)
        start = starting_points(store.file.start, space, store.file.parents)
        return _finished(session, _study(session, start, listener))
    finally:
        store.close()


def _check_scorer(store: RunStore, scorer: "ScorerFunction | None") -> None:
    then, now = (name or "lm-eval tasks" for name in (store.file.scorer, name_of(scorer)))
    if then != now:
        raise SpecError(f"{store.folder} was scored by {then}, not by {now}; go on from Python with the same scorer")


def _check_budget(found: Results, budget: Budget | None) -> None:
    done = len(found.state.finished())
    if budget is not None and budget.evaluations is not None and budget.evaluations < done:
        raise SpecError(f"--budget: {done} evaluations are done, {budget.evaluations} would be fewer; give more")


def confirm_more(out: Path, top: int, *, scorer: "ScorerFunction | None" = None, listener: Listener = QUIET) -> Results:
    """Score more of a run's candidates on the held-out items.

    Raises:
        SpecError: the folder holds no run, or nothing has been searched yet.
    """
    store = RunStore(out, write=True)
    try:
        found = Results(store)
        if not found.choose_finalists(top):
            raise SpecError(f"{out}: no candidate has been scored yet; go on with: evomerge resume {out}")
        state = found.status
        session = _opened(store, _reopened_evaluator(store, scorer, listener), None, listener)
        return _guarded(session, lambda: confirm(session, top), "finished" if state == "finished" else "stopped")
    finally:
        store.close()


def factory(run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> "EvaluatorFactory":
    """What sets up the evaluators of a run.

    Raises:
        SpecError: the run file wants an executor that is not there yet.
    """
    from evomerge.evaluate import EvaluatorFactory

    if run.executor.kind == "ray":
        raise SpecError("executor: ray is not there yet; write executor: {kind: inline}, or leave the key out")
    return EvaluatorFactory(
        models=run.models,
        fitness=run.fitness,
        seed=run.seed,
        device=run.device,
        scorer=scorer,
        reuse=run.executor.reuse,
        progress=listener.say,
    )


def check_calibration(run: RunSpec, table: ItemTable) -> None:
    """See that a calibration knows the items it is for.

    Raises:
        SpecError: it does not, or it cannot be read.
    """
    if run.fitness.estimator.calibration is not None:
        calibration = read_calibration(Path(run.fitness.estimator.calibration))
        for name, task in table.tasks.items():
            try:
                calibration.parameters_for(task.search.ids)
            except SpecError as error:
                raise SpecError(f"fitness.estimator.calibration: task {name!r}: {error}") from None


def with_defaults(run: RunSpec, parents: Parents, workers: int = 1) -> RunSpec:
    """The run with its optimiser written out, as it suits so many workers."""
    genes = bind(run.space, parents).genes
    if not genes:
        raise SpecError("space: nothing is searched, every number is fixed; give weight or density a range")
    return run.model_copy(update={"optimizer": resolve(run.optimizer, genes, len(run.fitness.objectives), workers)})


def versions() -> dict[str, str]:
    """What this process runs on."""
    found = {"evomerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}


def _reopened_evaluator(
    store: RunStore, scorer: "ScorerFunction | None", listener: Listener, device: str | None = None
) -> "Evaluator":
    """The evaluator of a run that was opened before, if nothing it depends on has changed."""
    for note in store.notes:
        listener.say(note)
    file = store.file
    _check_scorer(store, scorer)
    run = file.spec if device is None else file.spec.model_copy(update={"device": device})
    evaluator = factory(run, scorer, listener).build()
    for name, parent in file.parents.models.items():
        if evaluator.live.files.parents.models[name].content() != parent.content():
            raise SpecError(
                f"{store.folder}: {name} at {parent.shown()} has changed since the run was opened; restore it"
            )
    if not evaluator.table.same_items(store.table):
        raise SpecError(f"{store.folder}: the tasks have other items than when the run was opened; restore their data")
    return evaluator


def _opened(store: RunStore, evaluator: "Evaluator", budget: Budget | None, listener: Listener) -> Session:
    from evomerge.execute import InlineExecutor

    session = Session(store, InlineExecutor(evaluator), listener.watch)
    before = session.state.budget if session.state.opened else budget or session.state.budget
    device = str(evaluator.live.device)
    session.record(Opened(at=time.time(), budget=before, executor="inline", device=device, versions=versions()))
    if budget is not None and budget != before:
        session.record(Extended(at=time.time(), budget=budget))
    for note in evaluator.notes:
        listener.say(note)
    return session


def _study(session: Session, start: Start, listener: Listener) -> Study:
    file = session.store.file
    run, space = file.spec, bind(file.spec.space, file.parents)
    assert run.optimizer is not None, "resolved when the run was opened"
    build = Build(
        spec=run.optimizer,
        genes=space.genes,
        objectives=len(run.fitness.objectives),
        seeds=tuple(start.seeds),
        scalar=run.fitness.scalar,
        seed=run.seed,
    )
    appraiser, estimator = session.appraiser, run.fitness.estimator
    draws = Draws(appraiser, estimator, run.seed)
    for work in session.state.works.values():
        draws.remember(work.draw)
    schedule = Policy(appraiser, draws, estimator, run.fitness.scalar)
    # Where all genes are real numbers all layers change, and nothing is shared that an order could bring together.
    order = hop_order if any(gene.discrete for gene in space.genes) else None
    shared = block(run.optimizer, space.genes)
    study = Study(session, Parts(space, build, appraiser, schedule, start.seeds, start.outside, shared, order))
    for note in study.notes:
        listener.say(note)
    return study


def _finished(session: Session, study: Study) -> Results:
    def whole() -> None:
        study.run()
        confirm(session, FINALISTS)

    return _guarded(session, whole, "finished")


def _guarded(session: Session, work: Callable[[], None], state: str) -> Results:
    """Do the work and close the journal with how it went."""
    try:
        with Interruptible(session):
            work()
    except (Interrupted, KeyboardInterrupt):
        _close(session, "stopped", "interrupted")
        raise Interrupted(f"stopped; go on with: evomerge resume {session.store.folder}") from None
    except EvomergeError as error:
        _close(session, "failed", str(error))
        raise
    _close(session, state, "")
    return Results(session.store)


def _close(session: Session, state: str, reason: str) -> None:
    # A disk too full for the reason is reason enough; the journal is whole without it.
    with contextlib.suppress(RunError):
        session.record(Closed.model_validate({"at": time.time(), "state": state, "reason": reason}))


def name_of(scorer: object) -> str | None:
    """How a run remembers the scorer that stands in for lm-eval tasks, None if none does."""
    if scorer is None:
        return None
    named = scorer if hasattr(scorer, "__qualname__") else type(scorer)
    return f"{named.__module__}.{named.__qualname__}"
