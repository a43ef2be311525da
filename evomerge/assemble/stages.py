"""Runs of one search and of several in stages, told apart by what they are given."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evomerge.assemble import run, single
from evomerge.assemble.choose import choose, with_defaults
from evomerge.assemble.experts import with_recipes
from evomerge.assemble.folders import StagedFile, StagedRun, is_staged, run_folder
from evomerge.assemble.means import HERE, QUIET, Elsewhere, Listener, name_of
from evomerge.assemble.run import Prepared
from evomerge.errors import EvomergeError, RunError, SpecError
from evomerge.fitness import EstimatorKind
from evomerge.recipe import Parents, Recipe
from evomerge.results import Results, Row
from evomerge.space import unchanged
from evomerge.spec import Budget, RunSpec, StagedSpec, anchored, load_spec
from evomerge.store import RunStore, hold
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.plan import Plan
    from evomerge.score import ScorerFunction


class Stage(NamedTuple):
    """Where a run in stages stands: the last stage that has begun, its number from 1, how many there are to be."""

    name: str
    number: int
    of: int

    def __str__(self) -> str:
        """In words."""
        name = f", {self.name}" if self.name != str(self.number) else ""
        return f"stage {self.number} of {self.of}{name}"


def plan(spec: Path, *, listener: Listener = QUIET) -> "Plan":
    """Everything short of searching, of the first stage if there are several; what comes later is in its notes.

    Raises:
        SpecError: whatever `search` would fail on.
    """
    found = load_spec(spec)
    found = found.model_copy(update={"models": with_recipes(found.models, listener.say)})
    where = spec.absolute().parent
    if isinstance(found, RunSpec):
        return single.plan(found, where, lambda _: (), listener=listener)
    return single.plan(found.run(0, {}), where, lambda parents: _foresee(found, parents), listener=listener)


def search(
    spec: Path | RunSpec | StagedSpec,
    out: Path,
    *,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Run a search, or one stage after another, from the beginning to the confirmed results (of the last stage).

    Raises:
        SpecError: the run file, the models or the tasks cannot be used, or `out` exists.
        Interrupted: after Ctrl-C or SIGTERM; `resume` goes on.
        RunError: the run cannot go on.
    """
    found = load_spec(spec) if isinstance(spec, Path) else anchored(spec, Path.cwd())
    found = found.model_copy(update={"models": with_recipes(found.models, listener.say)})
    RunStore.target(out)
    if isinstance(found, RunSpec):
        return run.begin(run.prepare(found, scorer, listener), out, listener)
    prepared = run.prepare(found.run(0, {}), scorer, listener)
    with closing(prepared.means):
        _foresee(found, prepared.means.files.parents)
        staged = StagedRun.create(out, StagedFile(evomerge=__version__, spec=found, scorer=name_of(scorer)))
        return _Conductor(staged, scorer, listener).conduct(prepared)


def resume(
    out: Path,
    *,
    budget: Budget | None = None,
    elsewhere: Elsewhere = HERE,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Go on with a run where it was, perhaps with another budget (the last stage's), perhaps elsewhere.

    Raises:
        SpecError: the folder holds no run, or its models or tasks have changed since.
        Interrupted: after Ctrl-C or SIGTERM.
        RunError: the run cannot go on.
    """
    if not is_staged(out):
        return run.resume(out, budget=budget, elsewhere=elsewhere, scorer=scorer, listener=listener)
    return _Conductor(StagedRun.load(out), scorer, listener, budget, elsewhere).conduct()


def confirm_more(
    out: Path,
    top: int,
    *,
    elsewhere: Elsewhere = HERE,
    scorer: "ScorerFunction | None" = None,
    listener: Listener = QUIET,
) -> Results:
    """Score more of a run's candidates on the held-out items; of a run in stages those of the last that has begun.

    Raises:
        SpecError: the folder holds no run, or nothing has been searched yet.
    """
    return run.confirm_more(run_folder(out), top, elsewhere=elsewhere, scorer=scorer, listener=listener)


def load(out: Path, estimator: EstimatorKind | None = None) -> Results:
    """The results in a run folder, or of the last stage that has begun; needs no model and executes nothing.

    `estimator` is another one than the run's.

    Raises:
        SpecError: the folder holds no run, or a damaged one.
    """
    return Results.load(run_folder(out), estimator)


def stage_of(out: Path) -> Stage | None:
    """Where a run in stages stands; None if `out` is no such run, or none of its stages has begun."""
    staged = StagedRun.load(out) if is_staged(out) else None
    if staged is None or not staged.begun:
        return None
    return Stage(staged.file.spec.names[staged.begun - 1], staged.begun, staged.count)


def kept(results: Results, names: Sequence[str]) -> dict[str, Recipe]:
    """The best of a run under these names, as many as there are: what another one is to merge.

    With one objective by their confirmed value; with several the best, the knee, the best of each objective, then
    the others of the front.

    Raises:
        RunError: nothing could be scored.
    """
    if results.best is None:
        raise RunError(
            f"{results.store.folder}: no candidate could be scored, so that nothing is kept for what follows"
        )
    rows: list[Row] = [results.best]
    if len(results.objectives) > 1:
        rows += [results.pick(what) for what in ("knee", *results.objectives)]
    numbers = dict.fromkeys(row.number for row in (*rows, *results.front))
    return {name: results.recipe(number).only_used() for name, number in zip(names, numbers, strict=False)}


@dataclass(frozen=True)
class _Conductor:
    """Takes a run in stages from where it is to its end."""

    staged: StagedRun
    scorer: "ScorerFunction | None"
    listener: Listener
    budget: Budget | None = None
    elsewhere: Elsewhere = HERE

    def conduct(self, prepared: Prepared | None = None) -> Results:
        """Go on with the stage that was cut, then with those that follow; the first may be prepared."""
        lock = hold(self.staged.folder)
        try:
            place = max(0, self.staged.begun - 1)
            results = self._stage(place, {}, prepared)
            for later in range(place + 1, self.staged.count):
                best = kept(results, self.staged.file.spec.kept_names(later - 1))
                results = self._stage(later, best, None)
            return results
        finally:
            os.close(lock)

    def _stage(self, place: int, best: dict[str, Recipe], prepared: Prepared | None) -> Results:
        name, folder = self.staged.file.spec.names[place], self.staged.stage(place)
        if place < self.staged.begun and not self._is_last(place) and Results.load(folder).status == "finished":
            return Results.load(folder)
        self.listener.say(str(Stage(name, place + 1, self.staged.count)))
        self.listener.enter(name)
        with self._addressed(folder):
            if place < self.staged.begun:
                budget, where = self.budget if self._is_last(place) else None, self.elsewhere
                return run.resume(folder, budget=budget, elsewhere=where, scorer=self.scorer, listener=self.listener)
            begun = best if self.staged.file.spec.stages[place].parents == "experts" else {}
            prepared = prepared or run.prepare(self._spec(place, best), self.scorer, self.listener, begun)
            file = prepared.file.model_copy(update={"stage": self.staged.tie(place)})
            return run.begin(replace(prepared, file=file), folder, self.listener)

    def _is_last(self, place: int) -> bool:
        return place == self.staged.count - 1

    def _spec(self, place: int, best: dict[str, Recipe]) -> RunSpec:
        found = self.staged.file.spec.run(place, best)
        if self.budget is not None and self._is_last(place):
            found = found.model_copy(update={"budget": self.budget})
        return self.elsewhere.of(found)

    @contextmanager
    def _addressed(self, folder: Path) -> Iterator[None]:
        """Errors say how to go on with the whole, not with one stage."""
        try:
            yield
        except EvomergeError as error:
            text = str(error).replace(f"evomerge resume {folder}", f"evomerge resume {self.staged.folder}")
            raise type(error)(text) from None


def _foresee(spec: StagedSpec, parents: Parents) -> list[str]:
    """What can be said of stages after the first before it was run.

    Raises:
        SpecError: a later stage could not be searched whatever is kept for it.
    """
    notes = []
    for place in range(1, len(spec.stages)):
        names = spec.kept_names(place - 1)
        stand_in = unchanged(parents, parents.template).only_used()
        found = spec.run(place, dict.fromkeys(names, stand_in))
        experts = tuple(found.models.experts)
        models = {**{name: parents.models[name] for name in parents.names}, **dict.fromkeys(names, stand_in)}
        try:
            others = parents.model_copy(update={"models": models, "experts": experts})
            with_defaults(found, choose(found, others).optimizer, others)
        except SpecError as error:
            raise SpecError(f"stages.{place}: {error}") from None
        does = "begins with" if spec.stages[place].parents == "experts" else "merges"
        limits = ", ".join(f"{key} {value:g}" for key, value in found.budget.to_plain().items() if key != "target")
        notes.append(
            f"{Stage(spec.names[place], place + 1, len(spec.stages))} ({limits}) is not measured: it {does}"
            f" {' and '.join(names)}, which stage {place} has yet to find"
        )
    return notes
