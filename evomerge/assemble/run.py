"""Searches, from a run file to confirmed results, and on from where they were stopped."""

import contextlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from evomerge.assemble.choose import choose, with_defaults
from evomerge.assemble.learn import ground_of, guarded
from evomerge.assemble.means import (
    HERE,
    QUIET,
    Elsewhere,
    Listener,
    Means,
    check_scorer,
    name_of,
    set_up,
    set_up_again,
)
from evomerge.assemble.rewrite import with_rewritten
from evomerge.assemble.start import Start, starting_points, wanted_genomes
from evomerge.assemble.told import subjects, with_told
from evomerge.confirm import confirm
from evomerge.errors import EvomergeError, Interrupted, RunError, SpecError
from evomerge.estimate.calibration import read_calibration
from evomerge.events import Closed, Extended, Opened
from evomerge.interruptible import Interruptible
from evomerge.items import ItemTable
from evomerge.learning import Learning
from evomerge.optimize.build import Build, block
from evomerge.recipe import Recipe
from evomerge.results import FINALISTS, Results
from evomerge.schedule import Draws, Policy, hop_order
from evomerge.session import Session
from evomerge.space import bind, names_for
from evomerge.spec import Budget, RunSpec
from evomerge.store import RunFile, RunStore
from evomerge.study import WHOLE, Parts, Study
from evomerge.trial import Draw
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.score import ScorerFunction

LIBRARIES = ("torch", "transformers", "lm-eval", "cma", "pymoo", "optuna", "numpy", "safetensors")


@dataclass(frozen=True)
class Prepared:
    """A search that can begin: all it needs was opened and checked."""

    file: RunFile
    means: Means
    start: Start


def prepare(
    run: RunSpec,
    scorer: "ScorerFunction | None",
    listener: Listener,
    kept: Mapping[str, Recipe] = MappingProxyType({}),
) -> Prepared:
    """Open and check everything that a search needs, writing nothing; it begins with what was `kept`, too.

    Raises:
        SpecError: the models or the tasks cannot be used.
    """
    from evomerge.export import check_exportable
    from evomerge.plan import probe

    run = with_rewritten(run, scorer, listener)
    with contextlib.ExitStack() as unless_prepared:
        means = set_up(run, scorer, listener)
        unless_prepared.callback(means.close)
        parents = names_for(run.space, means.files.parents)
        space = bind(run.space, parents)
        choice = choose(run, parents, means.table, scorer=scorer is not None)
        resolved = with_defaults(run, choice.optimizer, parents, means.table, means.workers)
        resolved = with_told(resolved, means.table, len(space.genes))
        check_calibration(run, means.table)
        guarded(run, parents)
        check_exportable(space.decode(probe(space)), means.files)
        wanted = wanted_genomes(run, space, means.files.parents, kept)
        start = starting_points(wanted, space, parents)
        file = RunFile(
            evomerge=__version__, spec=resolved, parents=parents, start=wanted, scorer=name_of(scorer), why=choice.why
        )
        unless_prepared.pop_all()
    return Prepared(file, means, start)


def begin(prepared: Prepared, out: Path, listener: Listener) -> Results:
    """Run a search that is prepared from its beginning to its confirmed results, in a folder of its own.

    Raises:
        SpecError: `out` exists.
        Interrupted: after Ctrl-C or SIGTERM; `resume` goes on.
        RunError: the run cannot go on.
    """
    with closing(prepared.means), closing(RunStore.create(out, prepared.file, prepared.means.table)) as store:
        session = _opened(store, prepared.means, prepared.file.spec.budget, listener)
        return _finished(session, _study(session, prepared.start, listener), prepared.means, listener)


def resume(
    out: Path,
    *,
    budget: Budget | None = None,
    elsewhere: Elsewhere = HERE,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Go on with a run where it was, perhaps with another budget, on another device or by other workers.

    Raises:
        SpecError: the folder holds no run, or its models or tasks have changed since.
        Interrupted: after Ctrl-C or SIGTERM.
        RunError: the run cannot go on.
    """
    with closing(RunStore(out, write=True)) as store:
        found = Results(store)
        check_scorer(store, scorer)
        _check_budget(found, budget)
        if found.status == "finished" and budget in (None, found.state.budget):
            listener.say(f"{out} is finished; a larger budget extends it")
            return found
        with closing(set_up_again(store, elsewhere.of(store.file.spec), scorer, listener)) as means:
            session = _opened(store, means, budget, listener)
            space = bind(store.file.spec.space, store.file.parents)
            start = starting_points(store.file.start, space, store.file.parents)
            return _finished(session, _study(session, start, listener), means, listener)


def _check_budget(found: Results, budget: Budget | None) -> None:
    done = len(found.state.finished())
    if budget is not None and budget.evaluations is not None and budget.evaluations < done:
        raise SpecError(f"--budget: {done} evaluations are done, {budget.evaluations} would be fewer; give more")


def confirm_more(
    out: Path,
    top: int,
    *,
    elsewhere: Elsewhere = HERE,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Score more of a run's candidates on the held-out items.

    Raises:
        SpecError: the folder holds no run, or nothing has been searched yet.
    """
    with closing(RunStore(out, write=True)) as store:
        found = Results(store)
        if not found.choose_finalists(top):
            raise SpecError(f"{out}: no candidate has been scored yet; go on with: evomerge resume {out}")
        state = "finished" if found.status == "finished" else "stopped"
        with closing(set_up_again(store, elsewhere.of(store.file.spec), scorer, listener)) as means:
            session = _opened(store, means, None, listener)
            means.files.read_again()
            return _guarded(session, lambda: confirm(session, top), state)


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


def versions() -> dict[str, str]:
    """What this process runs on."""
    found = {"evomerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}


def _opened(store: RunStore, means: Means, budget: Budget | None, listener: Listener) -> Session:
    session = Session(store, means.executor, listener.watch, ahead=means.ahead(store.file.spec.chosen))
    before = session.state.budget if session.state.opened else budget or session.state.budget
    kind, device = means.spec.kind, means.device
    session.record(Opened(at=time.time(), budget=before, executor=kind, device=device, versions=versions()))
    if budget is not None and budget != before:
        session.record(Extended(at=time.time(), budget=budget))
    for note in means.notes:
        listener.say(note)
    return session


def _study(session: Session, start: Start, listener: Listener) -> Study:
    file = session.store.file
    run, space = file.spec, bind(file.spec.space, file.parents)
    assert run.chosen is not None, "it was when the run was opened"
    build = Build(
        spec=run.chosen,
        genes=space.genes,
        objectives=len(run.fitness.objectives),
        seeds=tuple(start.seeds),
        scalar=run.fitness.scalar,
        seed=run.seed,
        subjects=subjects(run.fitness, session.store.table),
    )
    appraiser, estimator = session.appraiser, run.fitness.estimator
    draws = Draws(appraiser, estimator, run.seed)
    for work in session.state.works.values():
        draws.remember(work.draw)
    schedule = Policy(appraiser, draws, estimator, run.fitness.scalar)
    # Where all genes are real numbers all layers change, and nothing is shared that an order could bring together.
    order = hop_order if any(gene.discrete for gene in space.genes) else None
    shared = block(run.chosen, space.genes)
    told, known = run.chosen.wants_scores, schedule.whole(0) if run.chosen.learns else WHOLE
    parts = Parts(space, build, appraiser, schedule, start.seeds, start.outside, shared, order, told, known)
    study = Study(session, parts)
    for note in study.notes:
        listener.say(note)
    return study


def _finished(session: Session, study: Study, means: Means, listener: Listener) -> Results:
    def whole() -> None:
        study.run()
        if study.parts.parents is not WHOLE:
            _learn(session, study.parts.parents, means, listener)
        if session.state.ended is not None:
            listener.say(f"the search ends before its budget is spent: {session.state.ended.reason}")
        means.files.read_again()
        confirm(session, FINALISTS)

    return _guarded(session, whole, "finished")


def _learn(session: Session, held: Draw, means: Means, listener: Listener) -> None:
    """Learn coefficients, from the fixed recipes on."""
    file = session.store.file
    ground = ground_of(file.spec, file.parents, means.files.anatomy, held, session.store.table.text)
    Learning(session, ground, listener.say).run()


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
        if isinstance(error, RunError) and "evomerge resume" not in str(error):
            raise type(error)(f"{error}; go on with: evomerge resume {session.store.folder}") from None
        raise
    except Exception as error:
        _close(session, "failed", f"{type(error).__name__}: {error}")
        raise
    _close(session, state, "")
    return Results(session.store)


def _close(session: Session, state: str, reason: str) -> None:
    # A disk too full for the reason is reason enough; the journal is whole without it.
    with contextlib.suppress(RunError):
        session.record(Closed.model_validate({"at": time.time(), "state": state, "reason": reason}))
