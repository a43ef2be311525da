"""Learned coefficients: a descent along the slopes of the loss, from the best fixed recipe on.

What is learned becomes candidates like any other. A run that was killed goes on from the last state of its descent, and
comes to the same.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import packed, unpacked
from evomerge.errors import Interrupted
from evomerge.events import Learned
from evomerge.items import TEXT
from evomerge.learn.adam import Floats
from evomerge.learn.course import SLOPE
from evomerge.learn.descent import Ask, Course, Descent
from evomerge.learn.gauss_newton import Answer, GaussNewton, NewtonCourse
from evomerge.learn.guard import Guard
from evomerge.learn.lots import Lots
from evomerge.learn.tradeoff import Weights
from evomerge.learning.ground import BESIDE, BISECTIONS, Ground
from evomerge.learning.references import References
from evomerge.learning.start import best_fixed, terms
from evomerge.learning.taught import answers_of, rights_of
from evomerge.recipe import Coefficients, Recipe
from evomerge.session import Session
from evomerge.store import LearnedStates
from evomerge.trial import Candidate, Draw, Evaluation, Failure, Learnt, Lesson, Work
from evomerge.values import Genome

SHARD = 8
"""Items that one work learns from, at least."""
SHARDS = 8
"""Works of a step, at most: whoever computes them, and however many there are, they are the same."""
OFTEN = 5.0
"""Seconds between two states that are kept."""
MARGIN = 2.5
"""Times as much as what is still to be done should take that is left for it, where time is what ends a search."""
NOBODY = -1
"""The number of a model that is no candidate."""


class Learning:
    """The descents of one run, and the candidates that they end in."""

    def __init__(self, session: Session, ground: Ground, say: Callable[[str], None]) -> None:
        self.session = session
        self.ground = ground
        self._say = say
        self._states = LearnedStates(session.store.folder)
        self._ids = count(1)
        self._spent = session.state.learned[-1].items if session.state.learned else 0
        self._pools = ground.pools(session.store.table)
        self._references = References(session, ground.imitated)
        self._guard: Guard | None = None
        self._longest = 0.0  # Seconds that lessons took.

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
        self._frame = self.ground.frame(self._genome(last.begun[0]))
        self.descent = self._made(np.zeros((self.ground.vectors, self.ground.layout.size)), last.course)
        arrays, facts = unpacked(self._states.read(last.state), str(self._states))
        later = self._states.read_latest()
        if later is not None:
            found, its = unpacked(later, str(self._states))
            if its["look"] == last.state:
                arrays, facts = found, its
        self.descent.restore(arrays)
        if self.ground.kept is not None:
            self._guard = Guard.restored(self.ground.kept.limit, arrays)
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
            self._frame, start = self.ground.frame(genomes[0]), terms(self.ground, genomes)
        self._number = learned[-1].descent + 1 if learned else 0
        self.descent = self._made(start, course)
        if not self._begin_guard():
            return False
        self._look()
        return True

    def _begin_guard(self) -> bool:
        """Know what guarded text may lose, if there is any; whether that is known."""
        kept = self.ground.kept
        if kept is None:
            return True
        places = sorted((*kept.pool, *kept.held))
        parts = self._lessons_of(kept.of, None, {TEXT: places}, Lesson(weights={}))
        self._spent += len(places)
        if parts is None:
            return False
        compared = np.full(max(places) + 1, np.nan)
        compared[places] = _of_text(parts)
        self._guard = Guard(kept.limit, compared)
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
        except (Interrupted, KeyboardInterrupt):
            self._keep_latest()
            raise

    def _is_look_due(self) -> bool:
        due = self.descent.is_worth_a_look or self.descent.is_over or self._is_late()
        return due and self.session.state.learned[-1].step != self.descent.step

    def _is_late(self) -> bool:
        """Whether there may be no more time than one more step, a look, and scoring what was learned take."""
        left, each = self.session.time_left(), self.session.state.price().seconds
        return left is not None and left <= MARGIN * (self._longest + each * len(self.ground.points))

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
        """The slopes of the items' mean loss; None if they could not be had."""
        total = sum(map(len, asked.items.values()))
        lesson = Lesson(grain=self.ground.layout.grain, weights=dict.fromkeys(asked.items, 1 / total))
        parts = self._lessons(asked.vector, asked.items, lesson)
        self._spent += SLOPE * total
        kept = self._kept_slopes(asked.vector, total)
        if parts is None or kept is None:
            return None
        slopes = self._summed(parts)
        return slopes if self._guard is None else slopes + self._guard.pull(slopes, kept)

    def _summed(self, parts: Sequence[Learnt]) -> NDArray[np.float64]:
        slopes = np.zeros(self.ground.layout.size)
        for part in parts:  # In the order of the items, whoever computed them.
            slopes += self.ground.layout.pulled(part.slopes)
        return slopes

    def _kept_slopes(self, vector: Floats, total: int) -> NDArray[np.float64] | None:
        """Slopes of guarded text's loss beside those of so many items, where it has a price; None if it failed."""
        guard, kept, priced = self._guard, self.ground.kept, np.zeros(self.ground.layout.size)
        if guard is None or kept is None:
            return priced
        count = min(max(1, total // BESIDE), len(kept.pool))
        text = [kept.pool[(self.descent.step * count + i) % len(kept.pool)] for i in range(count)]
        grain = self.ground.layout.grain if guard.weight else None
        parts = self._lessons(vector, {TEXT: text}, Lesson(grain=grain, weights={TEXT: 1 / count}))
        self._spent += (SLOPE if guard.weight else 1) * count
        if parts is None:
            return None
        priced = self._summed(parts) if guard.weight else priced
        guard.tell(float(np.mean(_of_text(parts) - guard.compared[text])))
        return priced

    def _answers(self, asked: Ask, price: int) -> dict[tuple[str, int], Answer] | None:
        """Each item's scores and their slopes; None if they could not be had."""
        parts = self._lessons(asked.vector, asked.items, Lesson(weights={}, ties=self.ground.layout.tied()))
        self._spent += price * sum(map(len, asked.items.values()))
        return None if parts is None else answers_of(asked.items, parts)

    def _look(self, at: Floats | None = None) -> None:
        """See how far the average, or what is `at` its place, has come, on held-out items, and write it down."""
        losses, excesses, judge = [], [], self.descent.judges_by
        held = {**self.ground.places(), **self._held_text()}
        lesson = Lesson(weights={}, loss=judge.measure, temperature=judge.temperature)
        for weights, vector in self.descent.look(at).items():
            parts = self._lessons(vector, held, lesson)
            losses.append((weights, self._means(parts)))
            excesses.append(self._excess(parts))
        self._spent += len(losses) * sum(map(len, held.values()))
        loss = float(np.mean([np.dot(weights, list(mean.values())) for weights, mean in losses]))
        if self._guard is not None:
            loss = self._guard.judged(loss, max(excesses), self.descent.average if at is None else at)
        self.descent.judge(loss, at)
        means = {label: float(np.mean([mean[label] for _, mean in losses])) for label in self.ground.objectives}
        self._write(means, max(excesses))

    def _held_text(self) -> dict[str, Sequence[int]]:
        return {} if self.ground.kept is None else {TEXT: self.ground.kept.held}

    def _excess(self, parts: Sequence[Learnt] | None) -> float:
        """By how much guarded text is foretold worse than it may be compared with, in nats a token."""
        if self._guard is None or self.ground.kept is None:
            return 0.0
        if parts is None:
            return np.inf
        return float(np.mean(_of_text(parts) - self._guard.compared[list(self.ground.kept.held)]))

    def _draw_back(self) -> None:
        """Go from the best below a guard's limit towards what is better and above it, as far as the guard holds."""
        guard, best = self._guard, self.descent.best.copy()
        if guard is None or guard.bold is None or not guard.worth_drawing_back(self.descent.best_loss):
            return
        bold, low, high = guard.bold, 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._holds(best + np.float32(middle) * (bold - best)) else (low, middle)
        guard.bold = None
        if low:
            self._look(best + np.float32(low) * (bold - best))

    def _holds(self, at: Floats) -> bool:
        """Whether guarded text is kept at all trade-offs that are looked at."""
        held, vectors = self._held_text(), self.descent.look(at).values()
        self._spent += len(vectors) * len(held[TEXT])
        excesses = [self._excess(self._lessons(vector, held, Lesson(weights={}))) for vector in vectors]
        return self._guard is not None and max(excesses) <= self._guard.limit

    def _means(self, parts: Sequence[Learnt] | None) -> dict[str, float]:
        """Mean losses by objective; of a failure they are beyond measure."""
        found = {}
        for label, tasks in self.ground.objectives.items():
            each = [loss for task in tasks for part in parts or () for loss in part.losses.get(task, ())]
            found[label] = float(np.mean(each)) if each else 1e9
        return found

    def _lessons(self, vector: Floats, items: Mapping[str, Sequence[int]], lesson: Lesson) -> list[Learnt] | None:
        """What items teach of the model with these coefficients, piece by piece; None if a piece failed."""
        coefficients = self.ground.layout.expanded(vector)
        recipe = self._frame.refined(coefficients)
        return self._lessons_of(recipe, coefficients if recipe.arrays is not None else None, items, lesson)

    def _lessons_of(
        self, recipe: Recipe, given: Coefficients | None, items: Mapping[str, Sequence[int]], lesson: Lesson
    ) -> list[Learnt] | None:
        """The same of a recipe, with what it names as a side file."""
        flat = [(task, place) for task, places in items.items() for place in places]
        pieces = min(SHARDS, max(1, len(flat) // SHARD))
        works = []
        for i in range(pieces):
            places: dict[str, tuple[int, ...]] = {}
            for task, place in flat[len(flat) * i // pieces : len(flat) * (i + 1) // pieces]:
                places[task] = (*places.get(task, ()), place)
            draw = Draw(pool="search", places=places)
            works.append(
                Work(
                    id=-next(self._ids), number=NOBODY, recipe=recipe, draw=draw, purpose="gradient",
                    coefficients=given, lesson=lesson.model_copy(update={"targets": self._references.of(places)}),
                )
            )  # fmt: skip
        started, results = time.monotonic(), self.session.lessons(works)
        self._longest = max(self._longest, time.monotonic() - started)
        return self._taught(results)

    def _taught(self, results: Sequence[Evaluation]) -> list[Learnt] | None:
        failed = [result.outcome for result in results if isinstance(result.outcome, Failure)]
        if failed:
            self._say(f"a step failed ({failed[0].stage}: {failed[0].reason}); the next one is half as long")
            return None
        learnt = [result.learnt for result in results]
        assert all(each is not None for each in learnt), "whoever was taught says what"
        return [each for each in learnt if each is not None]

    # ---- what is kept

    def _facts(self, look: str) -> dict[str, str]:
        return {"items": str(self._spent), "look": look}

    def _arrays(self) -> dict[str, NDArray[Any]]:
        guarded = self._guard.arrays() if self._guard is not None else {}
        return {**self.descent.arrays(), **guarded}

    def _write(self, losses: dict[str, float], excess: float) -> None:
        descent, guard = self.descent, self._guard
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
            coefficients = self.ground.layout.expanded(self.descent.best_at(weights))
            recipe = self._frame.refined(coefficients)
            if recipe.digest() not in known:
                known.add(recipe.digest())
                self._propose(recipe, coefficients, weights, draw)
        self.session.settle()
        return True

    def _propose(self, recipe: Recipe, coefficients: Coefficients, weights: Weights, draw: Draw) -> None:
        session = self.session
        while not session.room:
            session.collect()
        number = session.next_number
        named = dict(zip(self.ground.objectives, weights, strict=True))
        candidate = Candidate(number=number, genome=None, recipe=recipe, origin="recommended", tradeoff=named)
        session.propose(candidate, coefficients if recipe.arrays is not None else None)
        session.submit(session.assign(number, draw, "search"), recipe)


def _of_text(parts: Sequence[Learnt]) -> NDArray[np.float64]:
    """Losses of the pieces of text, in the order in which they were asked for."""
    return np.array([loss for part in parts for loss in part.losses.get(TEXT, ())])
