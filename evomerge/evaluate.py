"""A worker's work: merge a recipe into the live model, score it, turn trouble into a value."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

import torch

from evomerge.canary import canary
from evomerge.checkpoint import ParentFiles, Terms, costs_of, open_parents, read_tokenizer
from evomerge.device import choose_device, cores, take_share
from evomerge.errors import DeviceError, EvomergeError, RunError, SpecError
from evomerge.fitness import Fitness
from evomerge.items import COST, TEXT
from evomerge.materialize import GainError, LiveModel, check_gains
from evomerge.recipe import Coefficients, Parents, Recipe
from evomerge.score import (
    FunctionScorer,
    GradeFailure,
    Guarded,
    Prose,
    ScoreFailure,
    Scorer,
    ScorerFunction,
    TaskScorer,
    code_remark,
    open_banks,
)
from evomerge.space import unchanged
from evomerge.spec import GuardSpec, Models
from evomerge.teaching import Teacher
from evomerge.trial import Draw, Evaluation, Failure, LayerEvaluations, Learnt, Marks, Scores, Seconds, Work

SMALL = 10_000_000
"""Weights below which a second thread costs more than it computes."""
LOST_DEVICE: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
"""After such an error every call to the device fails; older torch only says "CUDA error"."""


_T = TypeVar("_T")


class _Served(NamedTuple):
    """What a work asked for: marks, with scores if they were wanted, or what a lesson gave."""

    marks: Marks = MappingProxyType({})
    scores: Scores | None = None
    learnt: Learnt | None = None


class Evaluator:
    """Holds parents, live model and items, and serves one work after another.

    With `costs` it says of every model what it costs, beside its marks. `table` holds the items, and then also what an
    unchanged parent costs; and the pieces of `prose`, which it puts to models, too.
    """

    def __init__(
        self, live: LiveModel, scorer: Scorer, name: str, *, costs: bool = False, prose: Prose | None = None
    ) -> None:
        self.live = live
        self.scorer = scorer
        self.name = name
        self.table = scorer.table
        self._prose = prose
        self.lessons = scorer.lessons(prose) if isinstance(scorer, TaskScorer) else None
        self._teacher = Teacher(live, self.lessons)
        self._costs = costs
        if costs:
            parent = costs_of(unchanged(self.parents, self.parents.template), live.files.anatomy)
            self.table = scorer.table.model_copy(update={"costs": parent})
        if prose is not None:
            self.table = self.table.model_copy(update={"text": prose.items})

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self.live.device)

    @property
    def parents(self) -> Parents:
        """The models it merges."""
        return self.live.files.parents

    @property
    def notes(self) -> tuple[str, ...]:
        """What goes the slow way, and why."""
        return tuple(sorted(self.live.notes | self.scorer.notes))

    def __call__(self, work: Work) -> Evaluation:
        """Merge and score, or give the lesson; whatever goes wrong with this candidate becomes its `Failure`.

        Raises:
            SpecError: a parent is not what it was, or the lesson is none for these models and tasks.
            RunError: something is missing or broken that every candidate needs.
        """
        self.live.files.check_unchanged()
        run, reused = self.live.prefix.run, self.live.prefix.reused
        found, seconds = self._tried(work.recipe, work.coefficients, partial(self._served, work))
        served = _Served() if isinstance(found, Failure) else found
        layers = LayerEvaluations(run=self.live.prefix.run - run, reused=self.live.prefix.reused - reused)
        return Evaluation(
            work=work.id,
            number=work.number,
            outcome=found if isinstance(found, Failure) else {task: dict(rows) for task, rows in served.marks.items()},
            scores=None if served.scores is None else dict(served.scores),
            learnt=served.learnt,
            seconds=seconds,
            layer_evaluations=None if layers == LayerEvaluations() else layers,
            worker=self.name,
        )

    def marks(self, recipe: Recipe, draw: Draw, called: str = "the model") -> Marks:
        """Merge and score a recipe that is no candidate, so that its failing is an error; `called` is its name.

        Raises:
            SpecError: its scales are beyond what weights bear, or a task's own code cannot grade its answers.
            RunError: the model cannot be scored.
        """
        try:
            check_gains(recipe)
        except GainError as error:
            raise SpecError(str(error)) from None
        outcome, _ = self._tried(recipe, None, lambda: self._with_costs(self.scorer.marks(draw), recipe))
        if isinstance(outcome, Failure):
            raise outcome.error(called)
        return outcome

    def _tried(
        self, recipe: Recipe, coefficients: Coefficients | None, serve: Callable[[], _T]
    ) -> tuple[_T | Failure, Seconds]:
        """Merge, and do what is to be done with the model; what came of it, and how long it took."""
        started = time.perf_counter()
        merged = None
        outcome: _T | Failure
        try:
            self.live.load(recipe, coefficients)
            merged = time.perf_counter()
            outcome = serve()
        except EvomergeError:
            raise
        except Exception as error:  # noqa: BLE001  The one place where a candidate's trouble is caught.
            _stop_if_not_its_fault(error)
            outcome = _failure(error, "merge" if merged is None else "score")
            if outcome.passing and self.live.device.type == "cuda":
                torch.cuda.empty_cache()
        ended = time.perf_counter()
        return outcome, Seconds(merge=(merged or ended) - started, score=ended - (merged or ended))

    def _served(self, work: Work) -> _Served:
        """What the work asks of the live model, which its recipe was loaded into."""
        if work.lesson is not None:
            return _Served(learnt=self._teacher.learnt(work))
        if self._prose is not None and TEXT in (work.draw.places or {}):
            return _Served(self._with_costs(self._prose.marks(work.draw), work.recipe))
        marks, scores = self.scorer.scored(work.draw) if work.scored else (self.scorer.marks(work.draw), None)
        return _Served(self._with_costs(marks, work.recipe), scores)

    def _with_costs(self, marks: Marks, recipe: Recipe) -> Marks:
        """Marks of what the recipe makes, and its costs."""
        if not self._costs:
            return marks
        costs = costs_of(recipe, self.live.files.anatomy)
        return {**marks, COST: {name: (value,) for name, value in costs.items()}}


def _stop_if_not_its_fault(error: Exception) -> None:
    """Stop at what would befall every candidate alike: blaming each would end in a run of nothing but failures.

    Raises:
        RunError: something is not installed.
        DeviceError: the device has stopped working.
    """
    if isinstance(error, ImportError):
        raise RunError(f"a package is missing ({_line(error)}); install it, and resume") from error
    if isinstance(error, torch.OutOfMemoryError):
        return
    if isinstance(error, LOST_DEVICE) or "CUDA error" in str(error):
        raise DeviceError(f"the device has stopped working ({_line(error)}); resume in a new process") from error


def _failure(error: Exception, stage: Literal["merge", "score"]) -> Failure:
    """A candidate's trouble as a value."""
    short = isinstance(error, torch.OutOfMemoryError | MemoryError)
    reason = _line(error) if isinstance(error, ScoreFailure) else f"{type(error).__name__}: {_line(error)}"
    return Failure(stage="grade" if isinstance(error, GradeFailure) else stage, reason=reason, passing=short)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


@dataclass(frozen=True)
class EvaluatorFactory:
    """All it takes to set up an evaluator, also in another process if `progress` and `scorer` can be pickled.

    `reuse` is how many GiB of hidden states are kept; left out: what is free allows it. The evaluator shares its
    machine with `others` like it, and computes on `threads` cores of a CPU; left out: on all. Of a GPU's memory it
    keeps to a `share`, if others are on it. Drift is measured on what a `guard` is about, without one on English prose.
    """

    models: Models
    fitness: Fitness
    seed: int
    device: str = "auto"
    scorer: ScorerFunction | None = None
    compiled: bool | None = None
    reuse: float | None = None
    others: int = 0
    threads: int | None = None
    share: float = 1.0
    guard: GuardSpec | None = None
    progress: Callable[[str], None] | None = field(default=None, compare=False)

    def build(self) -> Evaluator:
        """Open the parents, load the live model, build every request, and see that merging has an effect.

        Raises:
            SpecError: models or tasks cannot be used.
            RunError: the canary died.
        """
        device = choose_device(self.device)
        take_share(device, self.share)
        return self.over(self.open(), device)

    def open(self) -> ParentFiles:
        """Open the parents.

        Raises:
            SpecError: one cannot be used.
        """
        self._say("checking parents")
        terms = Terms(template=self.models.template, trusted=self.models.trust_remote_code)
        files = open_parents(self.models.base, self.models.sources(), self.seed, self._say, terms)
        if (rewritten := self.models.rewritten) is None:
            return files
        names = tuple(rewritten.sources())
        return replace(files, parents=files.parents.with_rewritten(names, instead=rewritten.instead))

    def say_what_runs(self) -> None:
        """Say which code of tasks the evaluators run, where they are set up by others, out of hearing.

        Raises:
            SpecError: there is no such task, or its file cannot be read.
        """
        if self.scorer is None:
            asked = self.guard.asked(self.fitness.include) if self.guard is not None else None
            remarks = [code_remark(fitness) for fitness in (self.fitness, asked) if fitness is not None]
            for remark in filter(None, remarks):
                self._say(remark)

    def beside(self, workers: int, cores: int, gpus: float) -> "EvaluatorFactory":
        """The same for one of so many workers on a machine, each with so many cores and GPUs, or a part of one."""
        return replace(self, others=workers - 1, threads=cores, share=gpus or 1.0, progress=None)

    def over(self, files: ParentFiles, device: torch.device) -> Evaluator:
        """The evaluator over parents that are open already."""
        if device.type == "cpu":
            torch.set_num_threads(1 if files.anatomy.parameters < SMALL else self.threads or cores())
        # Tasks come first: they are what most often goes wrong, and the live model takes longest.
        self._say("reading tasks")
        banks = open_banks(self.fitness, self._say) if self.scorer is None else None
        guarded = self._guarded()
        self._say("loading the live model")
        room = None if self.reuse is None else int(self.reuse * 2**30)
        reuse = 0 if self.scorer is not None else room
        live = LiveModel(files, device, compiled=self.compiled, reuse=reuse, others=self.others)
        name, costs = f"{socket.gethostname()}:{os.getpid()}", bool(self.fitness.costs())
        if self.scorer is not None:
            if self.guard is not None:
                raise SpecError("guard: a scorer of your own is put to no text; leave guard out")
            function = FunctionScorer(self.scorer, self.fitness, live.model, read_tokenizer(files.template))
            canary(live)
            return Evaluator(live, function, name, costs=costs)
        assert banks is not None
        try:
            tasks = TaskScorer(self.fitness, banks, live.model, files.template, forward=live.forward, seed=self.seed)
        except ScoreFailure as failure:
            raise RunError(f"{files.template.path} cannot be scored: {failure}") from None
        canary(live)
        prose = tasks.prose(guarded)
        if prose is None:
            self._say("drift on plain text is not measured: the tokenizer has no tokens for English prose")
        return Evaluator(live, tasks, name, costs=costs, prose=prose)

    def _guarded(self) -> Guarded | None:
        """What the guard is about; a SpecError if its task is unknown, or cannot be loaded."""
        if self.scorer is not None or self.guard is None:
            return None
        if (asked := self.guard.asked(self.fitness.include)) is None:
            return Path(str(self.guard.text))
        try:
            return next(iter(open_banks(asked, self._say).values()))
        except SpecError as error:
            raise SpecError(f"guard.task: {error}") from None

    def _say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what)
