"""Whole searches on simulated responses: resumed bit for bit, better than what they are compared with, honest."""

import itertools
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import journals
import numpy as np
import pytest
from conftest import story
from estimators import KINDS, closed_loop, winners_curse
from simulated import Plan, World, begin, go_on, make_world, parts, simulator

from evomerge.events import Incident
from evomerge.execute import Evaluate, InlineExecutor
from evomerge.fitness import EstimatorSpec
from evomerge.optimize import Optimizer
from evomerge.schedule import hop_order
from evomerge.session import Session
from evomerge.spec import Budget, CmaSpec, Nsga2Spec, OptimizerSpec, SurrogateSpec, TpeSpec
from evomerge.store import RunStore
from evomerge.study import Study
from evomerge.trial import Evaluation, Observation, Work

SMALL = EstimatorSpec(items=8, rungs=(3, 5), refresh=0.3)
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "cma": CmaSpec(population=4),
    "nsga2": Nsga2Spec(population=4),
    "tpe": TpeSpec(),
    "cma steady": CmaSpec(population=4, mode="steady"),
    "cma loss": CmaSpec(population=4, told="loss"),
    "nsga2 steady loss": Nsga2Spec(population=4, mode="steady", told="loss"),
    "nsga2 steady": Nsga2Spec(population=4, mode="steady"),
    "surrogate steady": SurrogateSpec(mode="steady"),
}


def worlds(count: int = 1, search: int = 40) -> dict[str, World]:
    return {f"task {i}": make_world(28, i, search=search) for i in range(count)}


def plan(name: str, **changes: object) -> Plan:
    values = {"estimator": SMALL, "budget": Budget(evaluations=24), "seed": 1, "optimizer": OPTIMIZERS[name]}
    return Plan(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_with_fresh_items_cut_at_any_line_goes_on_the_same(name: str, tmp_path: Path) -> None:
    """Same draws, same candidates, same rungs and refreshes, same estimates."""
    here = worlds(2 if name.startswith("nsga2") else 1)
    go_on(here, begin(here, plan(name), tmp_path / "whole"))
    whole = story(tmp_path / "whole")
    purposes = {event["purpose"] for event in whole if event["kind"] == "assigned"}
    assert purposes >= {"search", "refresh", "confirm"}
    for cut in journals.places(tmp_path / "whole", 31, name):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        journals.cut(run, cut)
        go_on(here, RunStore(run, write=True))
        assert story(run) == whole, f"cut after {cut} lines"
        shutil.rmtree(run)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("budget", [Budget(evaluations=24), Budget(item_evaluations=420)])
def test_a_generation_in_the_order_of_its_layers_cut_at_any_line_goes_on_the_same(
    name: str, budget: Budget, tmp_path: Path
) -> None:
    """It is proposed as a whole; what is scored first is a function of what is left."""
    here = worlds(2 if name.startswith("nsga2") else 1)
    found = go_on(here, begin(here, plan(name, budget=budget), tmp_path / "whole"), order=hop_order)
    assert not found.state.waiting
    most = budget.item_evaluations or 10**9
    assert found.state.items(found.store.table) <= most
    assert len(found.state.counted()) == (budget.evaluations or len(found.state.counted())) > 12
    whole = story(tmp_path / "whole")
    first: dict[int, int] = {}
    for work in whole:
        if work["kind"] == "assigned" and found.state.candidates[work["number"]].origin == "search":
            first.setdefault(work["number"], work["draw"].get("generation", -1))
    scored = [[n for n, draw in first.items() if draw == generation] for generation in sorted(set(first.values()))]
    knows = name in ("cma", "nsga2")
    assert any(numbers != sorted(numbers) for numbers in scored) or not knows
    if budget.evaluations and knows:  # The others know no generations, as items know none that are left over.
        keys = [[hop_order(found.recipe(number)) for number in numbers] for numbers in scored]
        assert all(each == sorted(each) for each in keys)
    for cut in journals.places(tmp_path / "whole", 37, f"{name} {budget}"):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        journals.cut(run, cut)
        go_on(here, RunStore(run, write=True), order=hop_order)
        assert story(run) == whole, f"cut after {cut} lines"
        shutil.rmtree(run)


class Overheard:
    """Listens to what an optimiser is told."""

    def __init__(self, inner: Optimizer, heard: list[list[Observation]]) -> None:
        self.generation = inner.generation
        self.ask, self.recommend = inner.ask, inner.recommend
        self._inner, self._heard = inner, heard

    def tell(self, observations: Sequence[Observation]) -> None:
        self._heard.append(list(observations))
        self._inner.tell(observations)


def listening(session: Session, heard: list[list[Observation]]) -> Study:
    given = parts(session)
    return Study(session, replace(given, scores=True, optimizer=lambda known: Overheard(given.optimizer(known), heard)))


def test_an_optimiser_is_told_scores_of_all_that_was_known_then_and_the_same_in_a_replay(tmp_path: Path) -> None:
    here, heard, again = worlds(), list[list[Observation]](), list[list[Observation]]()
    store = begin(here, plan("cma loss", budget=Budget(evaluations=40)), tmp_path / "RUN")
    evaluate = simulator(here, store)
    listening(Session(store, InlineExecutor(evaluate)), heard).run()
    store.close()
    listening(Session(RunStore(tmp_path / "RUN"), InlineExecutor(evaluate)), again)
    assert again == heard
    (world,) = here.values()
    counts = set()
    for each in itertools.chain(*heard):
        assert each.genome is not None
        assert each.rows is not None
        assert each.scores is not None
        rows = each.rows["task 0"]
        assert len(set(rows)) == len(rows)
        margins = world.margins_of(each.genome)[world.pools["search"][list(rows)]]
        assert np.array(each.scores["task 0"])[:, 0] == pytest.approx(margins, abs=1e-5)
        if len(rows) == 40 and each.utilities is not None:  # A parent, whose loss is no estimate.
            assert each.utilities[0] == pytest.approx(-np.logaddexp(0, -margins).mean(), abs=1e-5)
        counts.add(len(rows))
    assert len(counts) >= 3, "parents, those that were dropped at a rung, and those that were scored again"


class ManyWorkers:
    """Four works at a time, which come back in any order."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._works: list[Work] = []
        self._rng = random.Random(1)

    @property
    def free(self) -> int:
        return max(0, 4 - len(self._works))

    def submit(self, work: Work) -> None:
        self._works.append(work)

    def wait(self, timeout: float | None) -> list[Evaluation | Incident]:
        return [self._evaluate(self._works.pop(self._rng.randrange(len(self._works))))]

    def close(self) -> None:
        self._works.clear()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_many_workers_a_draw_stays_what_it_was(name: str, tmp_path: Path) -> None:
    """Also after a kill: what came late, of the draw before, was not known when it was made."""
    here = worlds(2 if name.startswith("nsga2") else 1)
    found = go_on(here, begin(here, plan(name, budget=Budget(evaluations=40)), tmp_path / "whole"), ManyWorkers)
    assert set(found.state.counted()) <= found.state.told_numbers
    assert len(found.state.counted()) == 40
    lines = (tmp_path / "whole/journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(40, len(lines), 31):
        run = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", run)
        journals.cut(run, cut)
        again = go_on(here, RunStore(run, write=True), ManyWorkers)
        draws: dict[int, set[str]] = {}
        for work in again.state.works.values():
            if work.draw.generation is not None and work.draw.of is None:
                draws.setdefault(work.draw.generation, set()).add(work.draw.model_dump_json())
        for number, pieces in again.appraiser.ledger.candidates():
            own = [piece.draw.places["task 0"] for piece in pieces if piece.draw.places and not piece.again]
            assert len(set().union(*own)) == sum(map(len, own)), f"candidate {number} got an item twice"
        assert all(len(versions) == 1 for versions in draws.values())


def test_a_search_by_default_beats_no_search_and_one_on_a_fixed_subset() -> None:
    """In true accuracy over the better parent: .021 against .011 and .011 when this was written."""
    default, fixed, _ = (KINDS[name] for name in KINDS)
    ours, theirs = (closed_loop(spec, Budget(evaluations=96), range(6)) for spec in (default, fixed))
    for rival in ([o.export for o in theirs], [o.uniform for o in ours]):
        assert np.mean([o.export for o in ours]) > np.mean(rival) + 0.004


def test_the_best_looks_better_than_it_is_until_it_is_confirmed() -> None:
    """.037 too good by the search's numbers, .004 by the shrunken ones, not at all on other items."""
    found = winners_curse(12)
    naive, shrunken, confirmed = (
        float(np.mean([getattr(o, what) for o in found])) for what in ("naive", "shrunken", "confirmed")
    )
    assert naive > 0.02
    assert shrunken < naive / 2
    assert abs(confirmed) < 0.012


def test_an_item_budget_leaves_room_for_what_is_recommended(tmp_path: Path) -> None:
    """Rungs and refreshes do not use it up; nor is it exceeded."""
    here = worlds()
    found = go_on(here, begin(here, plan("cma", budget=Budget(item_evaluations=300)), tmp_path / "run"))
    origins = [asked.origin for asked in found.state.candidates.values()]
    assert origins.count("recommended") == 2
    assert 300 - 3 * 8 <= found.to_json()["item_evaluations"] <= 300
