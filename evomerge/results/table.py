"""What a run has found so far: the one table that `show`, `--pick`, the report and the model card read."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import SpecError
from evomerge.estimate import Appraiser, Grader, Ledger, Pair
from evomerge.events import Asked
from evomerge.fitness import Bounds, EstimatorKind, Fitness, bounds_of
from evomerge.items import PoolName
from evomerge.recipe import Recipe
from evomerge.results.drift import Drifts
from evomerge.results.numbered import called, numbered
from evomerge.results.pareto import best_fronts, knee, non_dominated, volumes
from evomerge.results.pool import pool_keys
from evomerge.results.reading import read_into
from evomerge.results.rivals import Rivals
from evomerge.results.row import Row, Which, optimism
from evomerge.results.state import RunState
from evomerge.space import UNIFORM, bind
from evomerge.store import RunStore
from evomerge.trial import Draw, Marks

FINALISTS = 8
"""Candidates confirmed with one objective; with several it is their front."""
MOST_FINALISTS = 24
"""Points of a front that are confirmed, at most."""


class Results:
    """A run, read. Nothing is executed and no model is needed.

    Raises:
        SpecError: the folder holds no run, or a damaged one.
    """

    def __init__(self, store: RunStore, estimator: EstimatorKind | None = None) -> None:
        """`estimator` is another one than the run's, to see its search by."""
        self.store = store
        self.file = store.file
        self.fitness: Fitness = store.file.spec.fitness
        self.grader = Grader(self.fitness, store.table)
        self.state = RunState(store.file.spec.budget, store.file.spec.models.beforehand)
        self.appraiser = Appraiser(self.grader, Ledger(store.table), store.calibration, estimator)
        self._bounds: dict[str, Bounds] = {}
        for event in store.events():
            self.state.apply(event)
            read_into(self.appraiser.ledger, event, self.state, store)

    @classmethod
    def load(cls, folder: Path, estimator: EstimatorKind | None = None) -> "Results":
        """The results in a run folder."""
        return cls(RunStore(folder), estimator)

    @property
    def objectives(self) -> list[str]:
        """Labels of the objectives, in the order of the fitness file."""
        return list(self.fitness.objectives)

    @cached_property
    def rows(self) -> dict[int, Row]:
        """Every model of the run by number: candidates, and baselines outside the space."""
        rows = {number: self._row(asked) for number, asked in self.state.candidates.items()}
        return {number: row.model_copy(update={"shrunken": self._shrunken.get(number)}) for number, row in rows.items()}

    @cached_property
    def baselines(self) -> list[Row]:
        """The parents, then the fixed recipes."""
        named = [self.rows[number] for number, asked in self.state.candidates.items() if asked.name is not None]
        return sorted(named, key=lambda row: row.name not in self.parent_names)

    @property
    def parent_names(self) -> tuple[str, ...]:
        """Names of the baselines that are parents as they were."""
        return self.file.parents.names

    @cached_property
    def finalists(self) -> list[int]:
        """Candidates worth confirming: those confirmed already, or the front, or the top 8 and what was recommended."""
        return list(self.state.confirmed) or self.choose_finalists(FINALISTS)

    def choose_finalists(self, top: int) -> list[int]:
        """The search's best by its shrunken numbers: of one objective the top few, of several the front.

        With a cost those of the next fronts too, until there are `top`.
        """
        searched = [row for row in self.rows.values() if row.origin != "baseline" and row.search is not None]
        found = list({row.recipe: row for row in reversed(searched)}.values())[::-1]  # One of each recipe, the first.
        if not found:
            return []
        if len(self.objectives) == 1:
            ranked = sorted(found, key=lambda row: (-self.scalar(row, "shrunken"), row.number))
            best = [row for row in ranked if row.origin != "recommended"][:top]
        else:
            points = [self._oriented(row, "shrunken") for row in found]
            fewest = top if self.grader.costs else 1  # Of all that cost the same, a front has but the luckiest.
            best = [found[i] for i in best_fronts(points, fewest, max(top, MOST_FINALISTS))]
        recommended = [row for row in found if row.origin == "recommended" and row not in best]
        return [row.number for row in (*best, *recommended)]

    @cached_property
    def front(self) -> list[Row]:
        """The non-dominated finalists by their best known values; with one objective all finalists, best first."""
        # Of equals the first is on the front, and best.
        rows = [row for row in map(self.rows.__getitem__, sorted(self.finalists)) if self.known(row)]
        if len(self.objectives) == 1:
            return sorted(rows, key=lambda row: (-self.scalar(row), row.number))
        front = [rows[i] for i in non_dominated([self._oriented(row) for row in rows])]
        return sorted(front, key=lambda row: (-self._oriented(row)[0], row.number))

    @cached_property
    def best(self) -> Row | None:
        """The finalist with the highest confirmed scalarisation (by search values before confirmation)."""
        rows = [row for row in (self.rows[number] for number in self.finalists) if self.known(row)]
        return max(rows, key=lambda row: (self.scalar(row), -row.number), default=None)

    @cached_property
    def drifts(self) -> Drifts:
        """How well models foretell plain text."""
        return Drifts(self.state, self.store)

    @cached_property
    def _rivals(self) -> Rivals:
        return Rivals(self.grader, self.baselines, self.marks)

    @property
    def is_confirmed(self) -> bool:
        """Whether finalists have been scored on items that the search never saw."""
        return bool(self.state.confirmed)

    @property
    def status(self) -> str:
        """`running`, `stopped` (can be resumed; also after a kill), `failed` or `finished`."""
        if self.state.closed is not None:
            return self.state.closed.state
        return "running" if RunStore.in_use(self.store.folder) else "stopped"

    def trusted(self, row: Row) -> Which:
        """Which of a row's numbers is trusted most: confirmed ones once there are any, else the search's, shrunken."""
        return "confirmed" if self.is_confirmed else "shrunken" if row.shrunken else "search"

    def known(self, row: Row) -> Mapping[str, Pair]:
        """A row's most trusted values; none if it has not got those."""
        return row.values(self.trusted(row))

    def scalar(self, row: Row, which: str = "known") -> float:
        """All objectives of a row as one number."""
        return self.fitness.scalar(self._oriented(row, which), self._bounds_of(which))

    def pick(self, what: str) -> Row:
        """A candidate by `best`, `knee`, an objective's label, `number:N`, or `failed:N` for one that failed.

        Raises:
            SpecError: there is no such thing, or nothing has been evaluated yet.
        """
        row = numbered(self.rows, what, self.store.folder)
        if row is not None:
            return row
        if not self.front or self.best is None:
            raise SpecError(f"{what}: no candidate has been scored yet")
        if what == "best":
            return self.best
        if what == "knee" and len(self.objectives) > 1:
            return self.front[knee([self._oriented(row) for row in self.front])]
        if what in self.objectives:
            place = self.objectives.index(what)
            return max(self.front, key=lambda row: (self._oriented(row)[place], self.scalar(row)))
        known = ", ".join(("best", *(("knee",) if len(self.objectives) > 1 else ()), *self.objectives, "number:N"))
        raise SpecError(f"{what!r} is none of {known}")

    def recipe(self, number: int) -> Recipe:
        """The recipe of a candidate, decoded from its genome unless it was written out.

        Raises:
            SpecError: there is no such candidate, or this version decodes its genome to another recipe.
        """
        asked = self.state.candidates.get(number)
        if asked is None:
            raise SpecError(f"{self.store.folder} has no candidate {number}; its numbers end at {len(self.rows) - 1}")
        if asked.recipe is not None or asked.genome is None:
            assert asked.recipe is not None, "a candidate without a genome has its recipe written out"
            return self.store.side_files.placed(asked.recipe)
        recipe = bind(self.file.spec.space, self.file.parents).decode(asked.genome)
        if recipe.digest() != asked.digest:
            raise SpecError(
                f"{self.store.folder}: candidate {number} decodes to another recipe than when it was evaluated;"
                f" use evomerge {self.file.evomerge}, which made this run"
            )
        return recipe

    def marks(self, number: int, pool: PoolName) -> Marks | None:
        """Raw marks of a candidate on all of a pool."""
        whole = [e for e in self.state.scored.get((number, pool), ()) if self.state.works[e.work].draw.places is None]
        return self.store.marks(whole[-1]) if whole else None

    def best_parent(self, row: Row) -> dict[str, tuple[str, Pair]]:
        """For each objective, the parent that is best at it and the row's paired difference to it."""
        rivals = self._rivals.of(row, self.parent_names)
        places = enumerate(self.objectives) if rivals else ()
        return self._rivals.paired(row, {label: max(rivals, key=lambda r: self._oriented(r)[i]) for i, label in places})

    def best_fixed(self, row: Row) -> dict[str, tuple[str, Pair]]:
        """For each objective, the row's paired difference to the one best fixed recipe, or parent, by scalarisation."""
        best = max(self._rivals.of(row), key=self.scalar, default=None)
        return self._rivals.paired(row, dict.fromkeys(self.objectives, best) if best else {})

    def uniform(self, row: Row) -> dict[str, tuple[str, Pair]]:
        """For each objective, the row's paired difference to the uniform average of the experts."""
        rivals = self._rivals.of(row, [UNIFORM])
        return self._rivals.paired(row, dict.fromkeys(self.objectives, rivals[0]) if rivals else {})

    def paired(self, row: Row) -> dict[str, dict[str, tuple[str, Pair]]]:
        """All of these, by their keys in the JSON; each is empty if the row is not confirmed."""
        return {"best_parent": self.best_parent(row), "best_fixed": self.best_fixed(row), "uniform": self.uniform(row)}

    def optimism(self, which: Which) -> dict[str, float]:
        """By how much one of the finalists' numbers was better than the confirmed one, on average; costs are exact."""
        signs = {label: self.grader.sign(label) for label in self.objectives if label not in self.grader.costs}
        return optimism([self.rows[number] for number in self.finalists], which, signs)

    def hypervolumes(self) -> dict[str, float] | None:
        """Hypervolume of the front and of the fixed recipes, by the best known values; see `volumes`."""
        fixed = [self._oriented(row) for row in self.baselines if self.known(row)]
        if len(self.objectives) < 2 or not fixed or not self.front:
            return None
        return volumes([self._oriented(row) for row in self.front], fixed, self.grader.are_costs)

    def to_json(self) -> dict[str, Any]:
        """The object that `evomerge show --json` prints."""
        finished = self.state.finished()
        every = self.state.outcomes.values()
        merge, score = sum(e.seconds.merge for e in every), sum(e.seconds.score for e in every)
        return {
            "state": self.status,
            "evaluations": {
                "done": len(finished),
                "failed": sum(e.failure is not None for e in finished),
                "budget": self.state.budget.evaluations,
            },
            "ended": self.state.ended.reason if self.state.ended else None,
            "objectives": self.objectives,
            "baselines": [row.plain(("name", "search", "confirmed", "interval", "drift")) for row in self.baselines],
            "front": [self._front_entry(row) for row in self.front],
            "best": self.best.number if self.best else None,
            "item_evaluations": self.state.items(self.store.table),
            "estimator": self.appraiser.kind,
            "optimizer": {"kind": self.file.spec.optimizer.kind, "why": self.file.why},
            "seconds": {"merge": merge, "score": score, "overhead": max(0.0, self.state.held() - merge - score)},
            "layer_evaluations": self.state.layer_evaluations().model_dump(),
            "hypervolume": self.hypervolumes(),
            "text": self.store.table.text.source if self.store.table.text is not None else None,
            "failures": [{"number": e.number, **e.failure.to_plain()} for e in finished if e.failure],
            **pool_keys(self.state),
        }

    def _front_entry(self, row: Row) -> dict[str, Any]:
        paired = {
            name: {label: list(pair) for label, (_, pair) in differences.items()}
            for name, differences in self.paired(row).items()
        }
        keys = ("number", "recipe", "items", "search", "shrunken", "confirmed", "interval", "drift")
        return {**row.plain(keys), "paired": paired}

    def _row(self, asked: Asked) -> Row:
        search, marks = self.appraiser.reported(asked.number), self.marks(asked.number, "confirm")
        failed = [e.failure for e in self.state.scored.get((asked.number, "search"), ()) if e.failure is not None]
        return Row(
            number=asked.number,
            name=asked.name or called(asked),
            origin=asked.origin,
            recipe=asked.digest,
            items=self.appraiser.ledger.items(asked.number),
            search=search,
            confirmed=self._graded(marks, "confirm"),
            interval=None if marks is None else self._intervals(marks),
            report=self._graded(self.marks(asked.number, "report"), "report"),
            exact=tuple(self.grader.costs),
            drift=self.drifts.of_model(asked.number),
            failure=failed[0] if failed and search is None else None,
            tradeoff=asked.tradeoff,
        )

    def _intervals(self, marks: Marks) -> dict[str, tuple[float, float]]:
        return {label: self.grader.interval(marks, "confirm", label) for label in self.objectives}

    def _graded(self, marks: Marks | None, pool: PoolName) -> dict[str, Pair] | None:
        return None if marks is None else self.grader.values(marks, Draw(pool=pool))

    @cached_property
    def _shrunken(self) -> dict[int, dict[str, Pair]]:
        """Search estimates of all candidates in the space, shrunk to their neighbours'."""
        genomes = {number: asked.genome for number, asked in self.state.candidates.items() if asked.genome is not None}
        return self.appraiser.shrunken(genomes)

    def _values(self, row: Row, which: str) -> Mapping[str, Pair]:
        return self.known(row) if which == "known" else row.shrunken or row.search or {}

    def _bounds_of(self, which: str) -> Bounds:
        """Worst and best known value of each objective, signed so that higher is better."""
        if which not in self._bounds:
            rows = [row for row in self.rows.values() if self._values(row, which)]
            self._bounds[which] = bounds_of(self._oriented(row, which) for row in rows)
        return self._bounds[which]

    def _oriented(self, row: Row, which: str = "known") -> tuple[float, ...]:
        return self.grader.oriented(self._values(row, which))
