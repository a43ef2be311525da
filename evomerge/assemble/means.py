"""What a search computes with: models, items, and somebody who puts the one to the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never, cast

from evomerge.errors import SpecError
from evomerge.execute import Executor
from evomerge.items import ItemTable
from evomerge.session import Watch
from evomerge.spec import AnySpec, ExecutorKind, ExecutorSpec, InlineSpec, OptimizerSpec, RaySpec, RunSpec, parse
from evomerge.store import RunStore

if TYPE_CHECKING:
    from evomerge.checkpoint import ParentFiles
    from evomerge.evaluate import EvaluatorFactory
    from evomerge.score import ScorerFunction


@dataclass(frozen=True)
class Listener:
    """Who wants to know how it goes: one-line remarks, a call after every result, the name of a stage that begins."""

    say: Callable[[str], None] = lambda _: None
    watch: Watch = lambda *_: None
    enter: Callable[[str], None] = lambda _: None


QUIET = Listener()


@dataclass(frozen=True)
class Elsewhere:
    """Where a run goes on, if not where its run file says: by `executor`, with the options of Ray beside it."""

    device: str | None = None
    executor: ExecutorKind | None = None
    address: str | None = None
    workers: int | None = None

    def of(self, run: AnySpec) -> AnySpec:
        """The run there.

        Raises:
            SpecError: there are options of Ray, and the run is in this process; or an option cannot be.
        """
        kind = self.executor or run.executor.kind
        options: dict[str, Any] = {"address": self.address, "workers": self.workers}
        given = {name: value for name, value in options.items() if value is not None}
        executor: ExecutorSpec
        match kind:
            case "inline":
                if given:
                    raise SpecError(f"--{next(iter(given))}: the search runs in this process; add --executor ray")
                executor = InlineSpec(reuse=run.executor.reuse)
            case "ray":
                known = run.executor.model_dump() if run.executor.kind == kind else {"reuse": run.executor.reuse}
                executor = parse(RaySpec, known | given, "executor")
            case _:
                assert_never(kind)
        changes = {"executor": executor, "device": self.device or run.device}
        return cast(AnySpec, run.model_copy(update=changes))


HERE = Elsewhere()


@dataclass(frozen=True)
class Means:
    """All that a search needs to begin: opened models, items, and an executor, which must be closed.

    `workers` is how many of them there are to be; `notes` say what goes the slow way.
    """

    executor: Executor
    files: "ParentFiles"
    table: ItemTable
    spec: ExecutorSpec
    device: str
    workers: int
    notes: tuple[str, ...]

    def ahead(self, optimizer: OptimizerSpec | None) -> bool:
        """Whether works may wait for workers: on Ray, where a generation is known as a whole.

        Where workers outnumber it, the items of every candidate go to several of them.
        """
        if not self.spec.apart or optimizer is None or not optimizer.generations or optimizer.mode == "steady":
            return False
        from evomerge.execute.ray import RayExecutor, pieces_for

        if isinstance(self.executor, RayExecutor) and optimizer.population is not None:
            self.executor.split = pieces_for(self.workers, optimizer.population)
        return True

    def close(self) -> None:
        """Let whoever evaluates go."""
        self.executor.close()


def factory(run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> "EvaluatorFactory":
    """What sets up the evaluators of a run, here or in other processes."""
    from evomerge.evaluate import EvaluatorFactory

    return EvaluatorFactory(
        models=run.models,
        fitness=run.fitness,
        seed=run.seed,
        device=run.device,
        scorer=scorer,
        reuse=run.executor.reuse,
        guard=run.guard,
        progress=listener.say,
    )


def set_up(run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> Means:
    """Open the models and start whoever evaluates.

    Raises:
        SpecError: models, tasks or the cluster cannot be used.
        RunError: nobody could be started.
    """
    made, spec = factory(run, scorer, listener), run.executor
    match spec:
        case InlineSpec():
            from evomerge.execute import InlineExecutor

            here = made.build()
            return Means(InlineExecutor(here), here.live.files, here.table, spec, here.device, 1, here.notes)
        case RaySpec():
            from evomerge.execute.ray import RayExecutor

            files = made.open()
            made.say_what_runs()
            far = RayExecutor(spec, made, files.parents, listener.say)
            ready = far.pool.ready[0].ready
            assert ready is not None, "it has been set up"
            return Means(far, files, far.table, spec, ready.device, far.pool.wanted, ready.notes)
        case _:
            assert_never(spec)


def set_up_again(store: RunStore, run: RunSpec, scorer: "ScorerFunction | None", listener: Listener) -> Means:
    """The means of a run that was opened before, if nothing it depends on has changed.

    `run` is its spec, perhaps with another device or executor.

    Raises:
        SpecError: models or tasks are not those that it was opened with.
    """
    for note in store.notes:
        listener.say(note)
    check_scorer(store, scorer)
    means = set_up(run, scorer, listener)
    try:
        for name, parent in store.file.parents.models.items():
            if means.files.parents.models[name].content() != parent.content():
                raise SpecError(
                    f"{store.folder}: {name} at {parent.shown()} has changed since the run was opened; restore it"
                )
        if (change := means.table.changes_since(store.table)) is not None:
            raise SpecError(
                f"{store.folder}: {change} than when the run was opened, so that marks could not be compared; restore"
                " the task's files and data, or begin a new search"
            )
    except SpecError:
        means.executor.close()
        raise
    return means


def check_scorer(store: RunStore, scorer: "ScorerFunction | None") -> None:
    """See that a run goes on with the scorer that it was opened with.

    Raises:
        SpecError: it would not.
    """
    then, now = (name or "lm-eval tasks" for name in (store.file.scorer, name_of(scorer)))
    if then != now:
        raise SpecError(f"{store.folder} was scored by {then}, not by {now}; go on from Python with the same scorer")


def name_of(scorer: object) -> str | None:
    """How a run remembers the scorer that stands in for lm-eval tasks, None if none does."""
    if scorer is None:
        return None
    named = scorer if hasattr(scorer, "__qualname__") else type(scorer)
    return f"{named.__module__}.{named.__qualname__}"
