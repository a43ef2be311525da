"""Learned coefficients: a descent along the slopes of the loss, from the best fixed recipe on.

What is learned becomes candidates like any other. A run that was killed goes on from the last state of its descent, and
comes to the same.
"""

import time
from collections.abc import Callable
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import packed, unpacked
from evomerge.errors import Interrupted
from evomerge.events import Learned
from evomerge.learn.adam import Floats
from evomerge.learn.course import SLOPE
from evomerge.learn.descent import Ask, Course, Descent
from evomerge.learn.gauss_newton import Answer, GaussNewton, NewtonCourse
from evomerge.learn.lots import Lots
from evomerge.learn.tradeoff import Weights
from evomerge.learning.ground import Ground
from evomerge.learning.keeping import Keeping
from evomerge.learning.references import References
from evomerge.learning.runner import LessonRunner
from evomerge.learning.start import best_fixed, terms
from evomerge.learning.taught import answers_of, rights_of
from evomerge.recipe import Coefficients, Recipe
from evomerge.session import Session
from evomerge.store import LearnedStates
from evomerge.trial import Candidate, Draw, Lesson
from evomerge.values import Genome

OFTEN = 5.0
"""Seconds between two states that are kept."""
MARGIN = 2.5
"""Times as much as what is still to be done should take that is left for it, where time is what ends a search."""


class Learning:
    """The descents of one run, and the candidates that they end in."""

    def __init__(self, session: Session, ground: Ground, say: Callable[[str], None]) -> None:
        self.session = session
        self.ground = ground
        self._say = say
        self._states = LearnedStates(session.store.folder)
        self._spent = session.state.learned[-1].items if session.state.learned else 0
        self._pools = ground.pools(session.store.table)
        self._references = References(session, ground.imitated)
        self._runner = LessonRunner(session, ground, self._references, say)
        self._keeping: Keeping | None = None

    def run(self) -> None:
        """Learn until the budget is spent, and have what was learned scored.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
            RunError: the disk is full.
        """
        if self.session.state.ended is not None or not self._references.ask():
            return
        if self._takes_up() or (not self.session.state.learned and self._begin()):
            self._descend()
        while self._finish() and not self.descent.has_failed and self._begin():
            self._descend()

    # ---- beginnings

    def _takes_up(self) -> bool:
        """Take up the descent that the journal told of last; whether there is one."""
        learned = self.session.state.learned
        if not learned:
            return False
        last = learned[-1]
        self._number, self._begun = last.descent, last.begun
        self._runner.frame = self.ground.frame(self._genome(last.begun[0]))
        self.descent = self._made(np.zeros((self.ground.vectors, self.ground.layout.size)), last.course)
        arrays, facts = unpacked(self._states.read(last.state), str(self._states))
        later = self._states.read_latest()
        if later is not None:
            found, its = unpacked(later, str(self._states))
            if its["look"] == last.state:
                arrays, facts = found, its
        self.descent.restore(arrays)
        if self.ground.kept is not None:
            self._keeping = Keeping.restored(self.ground.kept, arrays, self._runner)
        self._spent = int(facts["items"])
        return True

    def _begin(self) -> bool:
        """Begin a descent, if the budget is enough for one; whether it is."""
        learned = self.session.state.learned
        last = learned[-1].course if learned else None
        course = self.ground.course(self._units(), self.session.store.table, last)
        if course is None or self._is_late():
            return False
        if learned:  # With a larger budget it goes on from the best of the one before.
            start, self._begun = self.descent.best_terms, learned[-1].begun
        else:
            self._begun = best_fixed(self.session, self.ground, self._references.wanted)
            if not self._begun:
                return False
            genomes = [self._genome(number) for number in self._begun]
            self._runner.frame, start = self.ground.frame(genomes[0]), terms(self.ground, genomes)
        self._number = learned[-1].descent + 1 if learned else 0
        self.descent = self._made(start, course)
        if self.ground.kept is not None:
            self._keeping = Keeping.begun(self.ground.kept, self._runner)
            if self._keeping is None:
                return False
        self._look()
        return True

    def _made(self, start: NDArray[np.float64] | Floats, course: Course | NewtonCourse) -> Descent | GaussNewton:
        seed, bounds, begun = self.ground.seed + self._number, self.ground.bounds, start.astype(np.float32)
        match course:
            case Course():
                lots = Lots(self._pools, list(self.ground.objectives.values()), seed)
                alone = self.ground.alone or (1.0,)
                return Descent(begun, course, lots, bounds=bounds, seed=seed, alone=alone)
            case NewtonCourse():
                rights = rights_of(self.session.store.table, self._pools, self._references.wanted)
                return GaussNewton(begun, course, rights, bounds=bounds, seed=seed)
            case _:
                assert_never(course)

    def _units(self) -> int:
        """Forward passes of one item that the budget still allows."""
        left = self.session.items_left()
        most = self.session.state.budget.evaluations
        if most is None:
            return left
        each = self.session.store.file.spec.fitness.estimator.drawn(self.session.store.table)
        spent = self._spent + self._references.cost
        return min(left, (most - len(self.session.state.counted())) * each - spent)

    def _genome(self, number: int) -> Genome:
        genome = self.session.state.candidates[number].genome
        assert genome is not None, "it was chosen among those that have one"
        return genome

    # ---- steps

    def _descend(self) -> None:
        """Make the steps that are left, and look where a look is due."""
        kept = time.monotonic()
        try:
            while True:
                if self._is_look_due():
                    self._look()
                    kept = time.monotonic()
                elif time.monotonic() - kept > OFTEN:
                    self._keep_latest()
                    kept = time.monotonic()
                if self.descent.is_over or self._is_late():
                    self._draw_back()
                    return
                self._step()
                self._settle()
        except (Interrupted, KeyboardInterrupt):
            self._keep_latest()
            raise

    def _is_look_due(self) -> bool:
        due = self.descent.is_worth_a_look or self.descent.is_over or self._is_late()
        return due and self.session.state.learned[-1].step != self.descent.step

    def _is_late(self) -> bool:
        """Whether there may be no more time than one more step, a look, and scoring what was learned take."""
        left, each = self.session.time_left(), self.session.state.price().seconds
        return left is not None and left <= MARGIN * (self._runner.longest + each * len(self.ground.points))

    def _step(self) -> None:
        asked = self.descent.ask()
        match self.descent:
            case Descent():
                self.descent.tell(self._slopes(asked))
            case GaussNewton():
                self.descent.tell(self._answers(asked, self.descent.course.price))
            case _:
                assert_never(self.descent)

    def _slopes(self, asked: Ask) -> NDArray[np.float64] | None:
        """The slopes of the items' mean loss, with those of guarded text; None if they could not be had."""
        grain, total = self.ground.layout.grain, sum(map(len, asked.items.values()))
        lesson = Lesson(grain=grain, weights=dict.fromkeys(asked.items, 1 / total))
        parts = self._runner.lessons(asked.vector, asked.items, lesson, price=SLOPE)
        if parts is None:
            return None
        slopes, keeping = self._runner.summed(parts), self._keeping
        if keeping is None:
            return slopes
        kept = keeping.slopes(asked.vector, self.descent.step, total, grain)
        return None if kept is None else slopes + keeping.guard.pull(slopes, kept)

    def _answers(self, asked: Ask, price: int) -> dict[tuple[str, int], Answer] | None:
        """Each item's scores and their slopes; None if they could not be had."""
        lesson = Lesson(weights={}, ties=self.ground.layout.tied())
        parts = self._runner.lessons(asked.vector, asked.items, lesson, price=price)
        return None if parts is None else answers_of(asked.items, parts)

    def _look(self, at: Floats | None = None) -> None:
        """See how far the average, or what is `at` its place, has come, on held-out items, and write it down."""
        losses, excesses, judge, keeping = [], [], self.descent.judges_by, self._keeping
        held = {**self.ground.places(), **(keeping.held if keeping is not None else {})}
        lesson = Lesson(weights={}, loss=judge.measure, temperature=judge.temperature)
        for weights, vector in self.descent.look(at).items():
            parts = self._runner.lessons(vector, held, lesson)
            losses.append((weights, self._runner.means(parts)))
            if keeping is not None:
                excesses.append(keeping.excess(parts))
        loss = float(np.mean([np.dot(weights, list(mean.values())) for weights, mean in losses]))
        excess = max(excesses, default=0.0)
        if keeping is not None:
            loss = keeping.guard.judged(loss, excess, self.descent.average if at is None else at)
        self.descent.judge(loss, at)
        self._settle()
        self._write(
            {label: float(np.mean([mean[label] for _, mean in losses])) for label in self.ground.objectives}, excess
        )

    def _draw_back(self) -> None:
        """Look at what a guard's way back ends in, if there is one."""
        at = self._keeping.drawn_back(self.descent) if self._keeping is not None else None
        if at is not None:
            self._look(at)
        self._settle()

    def _settle(self) -> None:
        """Count what lessons cost, once what they taught is part of the state."""
        self._spent += self._runner.cost
        self._runner.cost = 0

    # ---- what is kept

    def _facts(self, look: str) -> dict[str, str]:
        return {"items": str(self._spent), "look": look}

    def _arrays(self) -> dict[str, NDArray[Any]]:
        guarded = self._keeping.guard.arrays() if self._keeping is not None else {}
        return {**self.descent.arrays(), **guarded}

    def _write(self, losses: dict[str, float], excess: float) -> None:
        descent, guard = self.descent, self._keeping.guard if self._keeping is not None else None
        state = self._states.keep(packed(self._arrays(), self._facts("")))
        self.session.record(
            Learned(
                at=time.time(), descent=self._number, begun=self._begun, step=descent.step, course=descent.course,
                items=self._spent, losses=losses, best=descent.best_step, state=state,
                excess=excess if guard is not None else None, pull=guard.weight if guard is not None else None,
            )
        )  # fmt: skip
        self._states.forget_all_but(state)
        shown = ", ".join(f"{label} {loss:.4g}" for label, loss in losses.items())
        kept = "" if guard is None else f"; text {np.expm1(excess):+.1%} (limit {np.expm1(guard.limit):.1%})"
        self._say(f"learning: step {descent.step} of {descent.course.steps}, held-out loss {shown}{kept}")

    def _keep_latest(self) -> None:
        last = self.session.state.learned[-1]
        self._states.keep_latest(packed(self._arrays(), self._facts(last.state)))

    # ---- ends

    def _finish(self) -> bool:
        """Have what was learned scored as candidates, once; whether there is a descent that was."""
        if not self.session.state.learned:
            return False
        known = {asked.digest for asked in self.session.state.candidates.values()}
        draw = self.ground.held
        for weights in self.ground.points:
            recipe, given = self._runner.recipe(self.descent.best_at(weights))
            if recipe.digest() not in known:
                known.add(recipe.digest())
                self._propose(recipe, given, weights, draw)
        self.session.settle()
        return True

    def _propose(self, recipe: Recipe, given: Coefficients | None, weights: Weights, draw: Draw) -> None:
        session = self.session
        while not session.room:
            session.collect()
        number = session.next_number
        named = dict(zip(self.ground.objectives, weights, strict=True))
        candidate = Candidate(number=number, genome=None, recipe=recipe, origin="recommended", tradeoff=named)
        session.propose(candidate, given)
        session.submit(session.assign(number, draw, "search"), recipe)
