"""A search that models every item's scores over the genes, and looks for what makes all of them together good."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.learn.features import Features
from evomerge.learn.model import Model
from evomerge.learn.sheet import Answers, Sheet, Subject
from evomerge.optimize.checks import checked, genome_of
from evomerge.optimize.descent import Aim, descended
from evomerge.optimize.kinds import snapped
from evomerge.optimize.region import NARROWEST, RADIUS, Hope, Region, tradeoffs
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

TOGETHER = 4
"""Candidates that are proposed on what is known at one time; one of them where the model says, the others around it."""
SEVERAL = 2
"""Where there are several trade-offs, every so many candidates of each is where the model says."""
DESIGN = 16
"""Directions from the best start that are tried first, at most."""
DOUBT = 0.15
"""The standard deviation of what is added to proposals that are to teach something, in radii."""
FIT_STEPS = 12
REFIT = 1.25
"""The kernel is fitted anew when so many times as many candidates are known."""
SCOUTS = (0.5, 1 / 3, 2 / 3)
"""Shares of the range that all real genes get where fewer starts than these are known."""
AROUND = 8
"""Directions in which items that are new to all candidates are made known, at most."""
PULLS = (1.0, 0.5, 0.25, 0.125)
"""Shares of a step that are tried, one after the other, where it leads next to a failure."""
NEAR = 0.5
"""A point is taken for one that will not fail if what did not is nearer than this share of the way to what did."""
FLIPS, LUCKY_FLIPS = 2.0, 0.5
"""Discrete genes of another level in a point of the design, and in one that is to teach something, on average."""
TRIES = 20

Floats = NDArray[np.float64]


class Surrogate:
    """Asks `together` candidates at a time, or if `steady` always another one.

    An objective is learned from the scores of its items where observations bring any, else from utilities. What it asks
    for follows from its seed and from the order of what was asked and told.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        subjects: Sequence[Subject],
        *,
        seed: int,
        together: int = TOGETHER,
        steady: bool = False,
        initial: Sequence[Observation] = (),
    ) -> None:
        self._genes, self._subjects, self._seed = genes, subjects, seed
        self._together, self._steady = together, steady
        self._features, self._sheet = Features(genes), Sheet(subjects)
        self._regions = [Region(np.array(each)) for each in tradeoffs(len(subjects))]
        self._asked = 0
        self._left = 0  # Of those that are proposed together.
        self._waiting: list[Genome] = []
        self._known: set[Genome] = set()
        self._failed: dict[Genome, None] = {}
        self._hopes: dict[Genome, Hope] = {}
        self._settling: list[tuple[Genome, Hope]] = []
        self._model: Model | None = None
        self._stale, self._due = True, 0
        self._items = 0  # Told of when the model was made last.
        self._home: Floats | None = None
        self._design: list[Floats] = []
        self.tell(initial)
        known = self._sheet.candidates
        self._scouts = self._scouted() if known < len(SCOUTS) else []
        self._design = self._directions(0, min(len(genes), DESIGN)) if known < 2 * len(genes) + 4 else []

    @property
    def generation(self) -> int | None:
        """Candidates that are proposed together; None for steady state."""
        return None if self._steady else self._together

    def ask(self, count: int) -> list[Genome]:
        """The rest of those that are proposed together, none while their results are awaited."""
        asked: list[Genome] = []
        while len(asked) < count and (self._steady or self._left or not self._waiting):
            self._left = (self._left or self._together) - 1
            rng = np.random.default_rng((self._seed, self._asked))
            genome = self._next(rng)
            self._asked += 1
            self._known.add(genome)
            self._waiting.append(genome)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results, of points asked for or not; the model is made anew when something is asked for next."""
        for observation in checked(observations, len(self._genes), len(self._subjects)):
            genome = snapped(self._genes, genome_of(observation))
            if genome in self._waiting:
                self._waiting.remove(genome)
            self._known.add(genome)
            hope = self._hopes.pop(genome, None)
            if observation.utilities is None:
                self._fail(genome, hope)
                continue
            self._failed.pop(genome, None)
            name = genome if observation.number is None else observation.number
            self._sheet.put(name, genome, observation.utilities, answers_of(observation))
            self._settling += [(genome, hope)] if hope is not None else []
            self._stale = True

    def recommend(self) -> list[Genome]:
        """With one objective: the lowest point near the best one that was tried, and that one."""
        if not self._sheet.candidates or len(self._subjects) > 1:
            return []
        model, region = self._made(steps=0), self._regions[0]
        aim = self._aim(model, region)
        best = self._incumbent(aim)
        lowest = descended(aim, self._genes, best, max(region.radius / 2, NARROWEST))
        return list(dict.fromkeys(snapped(self._genes, point) for point in (lowest, best)))

    def _fail(self, genome: Genome, hope: Hope | None) -> None:
        self._failed[genome] = None
        if hope is not None:
            hope.region.shrink()

    def _next(self, rng: np.random.Generator) -> Genome:
        if self._scouts:
            return self._fresh(self._scouts.pop(0), rng)
        if not self._sheet.candidates:
            return self._fresh(rng.random(len(self._genes)), rng)
        self._learn()
        if self._home is None:
            self._home = self._incumbent(self._aim(self._now, self._middle))
        if self._design:
            step = self._design.pop(0)
            inside = np.abs(self._home + step - 0.5) <= np.abs(
                self._home - step - 0.5
            )  # Or more so than the other way.
            return self._fresh(self._flipped(self._home + np.where(inside, step, -step), FLIPS, rng), rng)
        return self._proposed(rng)

    def _learn(self) -> None:
        """Make the model anew if there is news, and take in what became of what was hoped."""
        if not self._stale:
            return
        due = self._sheet.candidates >= self._due
        self._due = int(self._sheet.candidates * REFIT) + 1 if due else self._due
        self._model = self._made(FIT_STEPS if due else 0)
        self._stale = False
        settling, self._settling = self._settling, []
        for genome, hope in settling:
            if hope.sharpness == hope.region.sharpness:
                aim = self._aim(self._now, hope.region)
                before = aim.at(hope.begun)
                hope.region.learn(before - aim.at(np.array(genome)), hope.before - hope.after, before)
        self._make_known()

    def _make_known(self) -> None:
        """Where most items are new, begin with what is smooth, and have them made known around the best point."""
        new, self._items = self._sheet.items - self._items, self._sheet.items
        if self._home is None or self._design or 2 * new < self._items:
            return
        for region in self._regions:
            region.sharpness, region.radius = 0, min(region.radius, RADIUS * 2 / 3)
        self._home = self._incumbent(self._aim(self._now, self._middle))
        steps = self._directions(1, min(len(self._genes), AROUND))
        self._design = [np.zeros(len(self._genes)), *steps]

    @property
    def _now(self) -> Model:
        assert self._model is not None, "a model is made before it is looked at"
        return self._model

    @property
    def _middle(self) -> Region:
        return self._regions[len(self._regions) // 2]

    def _made(self, steps: int) -> Model:
        """The model of what is known now."""
        if not self._stale and self._model is not None:
            return self._model
        return Model(self._features, self._sheet.known(), self._model.kernel if self._model else None, steps)

    def _proposed(self, rng: np.random.Generator) -> Genome:
        """Where the model says, unless that was asked for already; else where it says if other items counted more."""
        region = self._regions[self._asked % len(self._regions)]
        every = self._together if len(self._regions) == 1 else SEVERAL
        turn = self._asked // len(self._regions) % every
        sure = turn == 0 and not any(hope.region is region for hope in self._hopes.values())
        aim = self._aim(self._now, region)
        begun = self._incumbent(aim)
        if sure:
            point = descended(aim, self._genes, begun, region.radius)
        else:
            luck = rng.exponential(size=len(aim.shares))
            point = descended(self._aim(self._now, region, luck), self._genes, begun, region.radius)
            point = self._flipped(self._doubted(point, region.radius * DOUBT, rng), LUCKY_FLIPS, rng)
        genome = self._fresh(self._pulled(begun, point), rng)
        if sure:
            after = aim.at(np.array(genome))
            self._hopes[genome] = Hope(region, region.sharpness, begun, aim.at(begun), after)
        return genome

    def _aim(self, model: Model, region: Region, luck: Floats | None = None) -> Aim:
        """A region's loss: objectives in units of how much they differ between candidates."""
        known = model.known
        shares = known.weights if luck is None else known.weights * luck
        sums = np.bincount(known.subjects, shares, minlength=len(self._subjects))
        scales = np.ones(len(self._subjects))
        if len(self._subjects) > 1:
            lost = model.losses(known.genomes, region.loss) * known.weights
            totals = [lost[:, known.subjects == each].sum(1) for each in range(len(self._subjects))]
            scales = np.array([max(float(np.ptp(total)), 1e-9) for total in totals])
        return Aim(model, region.loss, shares * (region.tradeoff / scales / sums)[known.subjects])

    def _incumbent(self, aim: Aim) -> Floats:
        genomes = aim.model.known.genomes
        best: Floats = genomes[int(np.argmin(aim.values(genomes)))]
        return best

    def _scouted(self) -> list[Floats]:
        """Points with the same of every real gene, where little is known of a start."""
        genomes = self._sheet.genomes
        first = np.array(genomes[0]) if genomes else np.full(len(self._genes), 0.5)
        return [np.where([gene.discrete for gene in self._genes], first, share) for share in SCOUTS]

    def _directions(self, stream: int, count: int) -> list[Floats]:
        """Steps that have nothing in common with one another."""
        dimension = len(self._genes)
        normal = np.random.default_rng((self._seed, 1 << 20, stream)).standard_normal((dimension, count))
        return list(np.linalg.qr(normal)[0].T * RADIUS * np.sqrt(dimension) / 2)

    def _doubted(self, point: Floats, spread: float, rng: np.random.Generator) -> Floats:
        noise = spread * rng.standard_normal(len(point))
        return np.array([x if gene.discrete else x + e for gene, x, e in zip(self._genes, point, noise, strict=True)])

    def _flipped(self, point: Floats, count: float, rng: np.random.Generator) -> Floats:
        """So many of the discrete genes at another level, on average, but never more than half of them."""
        chance = min(0.5, count / max(1, len(self._genes) - len(self._features.real)))
        other, is_other = rng.random(len(point)), rng.random(len(point)) < chance
        is_other[self._features.real] = False
        return np.where(is_other, other, point)

    def _pulled(self, begun: Floats, point: Floats) -> Floats:
        """As much of a step as leads next to something that has not failed."""
        if not self._failed:
            return point
        failed = self._features.of(np.array(list(self._failed)))
        valid = self._features.of(self._now.known.genomes)
        for share in PULLS:
            found = begun + share * (point - begun)
            at = self._features.of(np.array([snapped(self._genes, np.clip(found, 0, 1))]))
            if ((valid - at) ** 2).sum(1).min() < NEAR**2 * ((failed - at) ** 2).sum(1).min():
                break
        return found

    def _fresh(self, point: Floats, rng: np.random.Generator) -> Genome:
        """The genome at a point; where it was asked for already, one beside it that was not."""
        genome = snapped(self._genes, np.clip(point, 0, 1))
        for _ in range(TRIES):
            if genome not in self._known:
                break
            genome = self._beside(genome, rng)
        return genome

    def _beside(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """A point with a discrete gene of another level, if there are any, and its real genes somewhat elsewhere."""
        found = self._doubted(np.array(genome), NARROWEST, rng)
        discrete = [index for index, gene in enumerate(self._genes) if gene.discrete]
        if discrete:
            index = discrete[int(rng.integers(len(discrete)))]
            found[index] = rng.random()
        return snapped(self._genes, np.clip(found, 0, 1))


def answers_of(observation: Observation) -> Answers:
    """The scores of an observation by task and item; none if it has none."""
    rows, scores = observation.rows or {}, observation.scores or {}
    return {task: dict(zip(rows[task], found, strict=True)) for task, found in scores.items()}
