"""Searches whose models are simulated: everything is real but the marks, which follow those of published merges.

The items of a world are laid out like those of two public models whose merge was published, by which of the two
solves them. Each parent clears an item by a margin; a merge's margin is the two's, mixed layer group by layer group
in the item's own proportions, and a synergy that is largest half way. It solves the item if the margin is above 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from contingency import published_pairs
from numpy.typing import NDArray

from evomerge.assemble.told import subjects
from evomerge.confirm import confirm
from evomerge.errors import SpecError
from evomerge.execute import Evaluate, Executor, InlineExecutor
from evomerge.fitness import EstimatorSpec, Fitness, Objective
from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.optimize.build import Build, block
from evomerge.recipe import Folder, Parents, Recipe, Slerp
from evomerge.results import FINALISTS, Results
from evomerge.schedule import Draws, Policy
from evomerge.session import Session
from evomerge.space import BlendSpec, SearchSpace, bind, fixed_recipes
from evomerge.spec import Budget, CmaSpec, Models, OptimizerSpec, RunSpec
from evomerge.store import RunFile, RunStore
from evomerge.study import Parts, Study
from evomerge.trial import Evaluation, Work
from evomerge.values import Genome
from evomerge.version import __version__

Floats = NDArray[np.float64]
GROUPS = 8
EXPERTS = ("one", "other")
UNIFORM: Genome = (0.5,) * GROUPS
PAIRS = (28, 31, 32, 45)
"""Of the published ones, four whose parents are about as good and were put to all 493 items."""
MARGIN = 1.15
"""Margins of solved items against those of others: as published, 59 % of what one parent solves its merge solves."""
SYNERGY, SYNERGY_SPREAD = 0.08, 0.25
TILT = 0.6
"""How much what a parent alone solves rests on the same layers: what there is to find for a search."""


class Items(Protocol):
    """What merges get on the items of a task, by their genomes."""

    @property
    def pools(self) -> Mapping[str, NDArray[np.int64]]:
        """Places of the items of each pool."""
        ...

    def marks(self, genome: Genome) -> Floats:
        """The mark of every item (items,)."""
        ...

    def scores_of(self, genome: Genome) -> Floats:
        """Log-likelihoods of every item's options, the right one first (items, options)."""
        ...

    def items(self) -> TaskItems:
        """The pools as a run knows them."""
        ...


@dataclass(frozen=True)
class World:
    """What two parents and all merges of them get on the items of a task. `search` are those of the search pool."""

    margins: Floats  # (parents, items)
    layers: Floats  # (items, groups), rows sum to 1
    synergy: Floats  # (items,)
    search: NDArray[np.int64]

    def marks(self, genome: Genome) -> Floats:
        """The mark of every item (items,)."""
        return np.asarray(self.margins_of(genome) > 0, dtype=np.float64)

    def margins_of(self, genome: Genome) -> Floats:
        """The margin of every item (items,); gene `t` of a group is the other parent's share there."""
        t = np.asarray(genome)
        one, other = self.margins
        mixed = one * (self.layers @ (1 - t)) + other * (self.layers @ t)
        return np.asarray(mixed + self.synergy * (self.layers @ (4 * t * (1 - t))))

    def scores_of(self, genome: Genome) -> Floats:
        """Log-likelihoods of two options, the right one first (items, options)."""
        margins = self.margins_of(genome)
        return np.column_stack([margins, np.zeros_like(margins)])

    def truth(self, genome: Genome) -> float:
        """Accuracy over all items, of the search and of the confirm pool."""
        return float(self.marks(genome).mean())

    @cached_property
    def best_parent(self) -> float:
        """The accuracy of the better parent."""
        return max(self.truth((corner,) * GROUPS) for corner in (0.0, 1.0))

    @cached_property
    def pools(self) -> Mapping[str, NDArray[np.int64]]:
        """Places of the items of each pool."""
        return {"search": self.search, "confirm": np.setdiff1d(np.arange(len(self.synergy)), self.search)}

    def items(self) -> TaskItems:
        """The pools as a run knows them."""
        return task_items(self.pools)


def task_items(pools: Mapping[str, NDArray[np.int64]]) -> TaskItems:
    """A task's pools as a run knows them, every item a cluster of its own, of its options the first one right."""
    named = {name: tuple(f"item {place}" for place in places) for name, places in pools.items()}
    known = {name: Pool(ids=ids, clusters=ids, golds=((0,),) * len(ids)) for name, ids in named.items()}
    return TaskItems(search=known["search"], confirm=known["confirm"], metrics={"acc": True})


def make_world(pair: int, seed: int, confirm_share: int = 1, search: int | None = None) -> World:
    """A world with the cells of a published pair, `1 + confirm_share` times over; `search` items, or one such part."""
    rng = np.random.default_rng((seed, pair))
    counts = published_pairs()[pair].sum(axis=1)
    solved = np.tile(np.repeat([[0, 0, 1, 1], [0, 1, 0, 1]], counts, axis=1), 1 + confirm_share)  # (parents, items)
    sizes = np.abs(rng.normal(size=solved.shape)) + 0.02
    homes = rng.permutation(np.repeat([-1.0, 1.0], GROUPS // 2))
    lean = TILT * np.outer(solved[0] - solved[1], homes)  # (items, groups)
    layers = rng.gamma(np.exp(lean))
    return World(
        margins=np.where(solved == 1, MARGIN * sizes, -sizes),
        layers=layers / layers.sum(axis=1, keepdims=True),
        synergy=np.asarray(rng.normal(SYNERGY, SYNERGY_SPREAD, solved.shape[1])),
        search=np.sort(rng.permutation(solved.shape[1])[: search or counts.sum()]),
    )


PARENTS = Parents(
    models={name: Folder(path=f"/{name}", digest=f"sha256:{name}") for name in EXPERTS},
    base=None,
    experts=EXPERTS,
    layers=GROUPS,
    outer=("embeddings", "norm", "head"),
    dtype="bfloat16",
)
SPACE = BlendSpec(operator=Slerp(), groups=GROUPS, outer="join")


EIGHT = CmaSpec(population=8)


@dataclass(frozen=True)
class Plan:
    """What a simulated search is to do."""

    estimator: EstimatorSpec
    budget: Budget
    seed: int
    optimizer: OptimizerSpec = EIGHT


@dataclass(frozen=True)
class Simulator:
    """Merges and scores in a simulated world, one for every task, each an objective of its own."""

    worlds: Mapping[str, Items]
    space: SearchSpace

    def __call__(self, work: Work) -> Evaluation:
        """The marks of a recipe on the drawn items."""
        genome = self._genome(work.recipe)
        outcome: dict[str, dict[str, tuple[float, ...]]] = {}
        scores: dict[str, tuple[tuple[float, ...], ...]] = {}
        for task, world in self.worlds.items():
            pool = world.pools[work.draw.pool]
            places = range(len(pool)) if work.draw.places is None else work.draw.places.get(task, ())
            rows = pool[list(places)]
            outcome[task] = {"acc": tuple(map(float, world.marks(genome)[rows]))}
            scores[task] = tuple(map(tuple, world.scores_of(genome)[rows].astype(np.float32).tolist()))
        return Evaluation(work=work.id, number=work.number, outcome=outcome, scores=scores if work.scored else None)

    def _genome(self, recipe: Recipe) -> Genome:
        try:
            return self.space.encode(recipe)
        except SpecError:  # The uniform average, which slerp does not express; here it is the same.
            return UNIFORM


def begin(worlds: Mapping[str, Items], plan: Plan, folder: Path) -> RunStore:
    """A new run folder, with the even merge to start from beside the parents."""
    spec = RunSpec(
        models=Models(experts={name: f"/{name}" for name in EXPERTS}),
        space=SPACE,
        fitness=Fitness(objectives={task: Objective(task=task) for task in worlds}, estimator=plan.estimator),
        optimizer=plan.optimizer,
        budget=plan.budget,
        seed=plan.seed,
    )
    file = RunFile(evomerge=__version__, spec=spec, parents=PARENTS, start=(UNIFORM,))
    return RunStore.create(folder, file, ItemTable(tasks={task: world.items() for task, world in worlds.items()}))


def go_on(
    worlds: Mapping[str, Items],
    store: RunStore,
    executor: Callable[[Evaluate], Executor] = InlineExecutor,
    order: Callable[[Recipe], tuple[str, ...]] | None = None,
) -> Results:
    """Search, or go on with it, to the confirmed results; the store is closed then. `order` is as in `Parts`."""
    session = Session(store, executor(simulator(worlds, store)))
    study(session, order).run()
    confirm(session, FINALISTS)
    store.close()
    return Results(store)


def simulator(worlds: Mapping[str, Items], store: RunStore) -> Simulator:
    """Who scores the candidates of a run in these worlds."""
    return Simulator(worlds, bind(store.file.spec.space, store.file.parents))


def study(session: Session, order: Callable[[Recipe], tuple[str, ...]] | None = None) -> Study:
    """The search of a run, as far as its journal goes."""
    return Study(session, parts(session, order))


def parts(session: Session, order: Callable[[Recipe], tuple[str, ...]] | None = None) -> Parts:
    """What it is made of."""
    store = session.store
    run, space = store.file.spec, bind(store.file.spec.space, store.file.parents)
    assert run.chosen is not None, "every plan has one"
    seeds: dict[Genome, str | None] = {
        **{space.encode(recipe): name for name, recipe in fixed_recipes(PARENTS).items() if name in EXPERTS},
        **dict.fromkeys(store.file.start),
    }
    build = Build(
        run.chosen,
        space.genes,
        len(run.fitness.objectives),
        tuple(seeds),
        run.fitness.scalar,
        run.seed,
        subjects(run.fitness, store.table),
    )
    estimator, appraiser = run.fitness.estimator, session.appraiser
    policy = Policy(appraiser, Draws(appraiser, estimator, run.seed), estimator, run.fitness.scalar)
    shared = block(run.chosen, space.genes)
    return Parts(space, build, appraiser, policy, seeds, {}, shared, order, run.chosen.wants_scores)


def simulate(world: World, plan: Plan, folder: Path) -> Results:
    """One search in one world, from beginning to end."""
    return go_on({"task": world}, begin({"task": world}, plan, folder))
