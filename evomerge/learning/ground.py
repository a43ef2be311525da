"""What a run learns from: coefficients, objectives, items held out; and what that may cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.items import ItemTable
from evomerge.learn.course import FEW, course_for, newton_course_for, usual_rate
from evomerge.learn.descent import Course
from evomerge.learn.gauss_newton import NewtonCourse
from evomerge.learn.layout import Layout
from evomerge.learn.tradeoff import Weights, points_of
from evomerge.recipe import Recipe
from evomerge.spec import GradientSpec
from evomerge.trial import Draw
from evomerge.values import Genome

BESIDE = 4
"""One piece of guarded text comes with so many items of a step."""
BISECTIONS = 4
"""How often the way back to below a guard's limit is halved."""


@dataclass(frozen=True)
class Kept:
    """What learning must keep: the loss of text, by places of its pieces, but for a `limit` in nats a token.

    Pieces to learn from lie in `pool`, those in `held` judge; the loss may be above that of the recipe `of`.
    """

    limit: float
    of: Recipe
    pool: Sequence[int]
    held: Sequence[int]

    def cost(self, looks: int) -> int:
        """Passes beside steps and looks, of which each has so many vectors: to know the limit, and for the way back."""
        return len(self.pool) + len(self.held) + BISECTIONS * looks * len(self.held)


@dataclass(frozen=True)
class Ground:
    """What is learned: coefficients by `layout`, in the `frame` of a genome's recipe, which has these `weights`.

    `objectives` are the tasks of each; `held` are the items that nothing is learned from. `imitated` are the tasks
    whose items are learned from what experts answer, by these experts' names. What is learned is one model `alone`, for
    these weights of the objectives, or else a front. `kept` is what a guard is about.
    """

    spec: GradientSpec
    layout: Layout
    frame: Callable[[Genome], Recipe]
    weights: Callable[[Recipe], Mapping[str, Sequence[float]]]
    bounds: tuple[float, float]
    objectives: Mapping[str, Sequence[str]]
    held: Draw
    seed: int
    imitated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    alone: Weights | None = None
    kept: Kept | None = None

    @property
    def points(self) -> list[Weights]:
        """Trade-offs whose models become candidates."""
        return [self.alone] if self.alone is not None else points_of(len(self.objectives))

    @property
    def vectors(self) -> int:
        """Vectors that the coefficients are a function of, see `tradeoff`."""
        return 1 if self.alone is not None else len(self.objectives)

    def places(self) -> dict[str, tuple[int, ...]]:
        """Places of the items held out, by task."""
        return {task: tuple(places) for task, places in (self.held.places or {}).items()}

    def pools(self, table: ItemTable) -> dict[str, list[int]]:
        """Places of the items to learn from, by task."""
        held = {task: set(places) for task, places in self.places().items()}
        return {
            task: [place for place in range(len(items.search.ids)) if place not in held.get(task, ())]
            for task, items in table.tasks.items()
        }

    def course(
        self, units: int, table: ItemTable, before: Course | NewtonCourse | None = None
    ) -> Course | NewtonCourse | None:
        """How a descent can go that may cost so many units, with the scoring of what it ends in; None if it cannot.

        Where Gauss-Newton is too dear, Adam's steps of fewer items may not be, unless Gauss-Newton was there `before`.
        """
        vectors, held = self.vectors, table.count("search", self.held.places)
        pools = [len(pool) for pool in self.pools(table).values()]
        left = units - held * len(self.points)
        if self._is_small():
            sources = max(block.sources for block in self.layout.blocks)
            newton = newton_course_for(left, held, len(pools) * min(pools), self.layout.size, sources)
            if newton is not None or isinstance(before, NewtonCourse):
                return newton
        grain = None if self.layout.ties is not None else self.layout.grain
        if self.kept is not None:
            held += len(self.kept.held)
            left = (left - self.kept.cost(vectors) - held * vectors) * BESIDE // (BESIDE + 1)
        rate = self.spec.rate or usual_rate(grain, self.layout.width, vectors)
        return course_for(left, held * vectors, vectors, min(pools), rate=rate, batch=self.spec.batch)

    def _is_small(self) -> bool:
        """Whether each item's own slopes are wanted: by few numbers, of one objective, without a word of Adam."""
        spoken = self.kept is not None or self.spec.rate is not None or self.spec.batch is not None
        return self.layout.ties is not None and self.layout.size <= FEW and len(self.objectives) == 1 and not spoken
