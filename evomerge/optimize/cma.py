"""CMA-ES for one objective (Hansen 2016), a generation at a time or one result at a time."""

from collections.abc import Sequence

from evomerge.optimize.checks import checked, genome_of
from evomerge.optimize.coordinates import Floats
from evomerge.optimize.kinds import snapped
from evomerge.optimize.neighbours import Neighbours
from evomerge.optimize.restarts import Restarts
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome

IDLE = 20
"""Generations in a row of known points alone, after which new points are looked for near the best."""
ELSEWHERE = 4
"""How many of these are asked for together."""


class Cma:
    """One generation at a time; the same fitness for everybody never stops it.

    Where all genes are discrete a point comes up again and again; what is known of it is then told without asking.
    `given` are results that the start was chosen from.
    """

    def __init__(self, genes: Sequence[Gene], restarts: Restarts, given: Sequence[Observation]) -> None:
        self._genes = genes
        self._countable = all(gene.discrete for gene in genes)
        self._restarts = restarts
        self._known: dict[Genome, Observation] = {}
        self._waiting: dict[Genome, list[Floats]] = {}
        self._told: list[tuple[Floats, Observation]] = []
        self._queue: dict[Genome, list[Floats]] = {}
        self.tell(given)

    @property
    def generation(self) -> int:
        """The population."""
        return self._restarts.population

    def ask(self, count: int) -> list[Genome]:
        """The rest of this generation, none while its results are awaited."""
        if not self._queue and not self._waiting and not self._told:
            self._draw()
        asked = list(self._queue)[:count]
        self._waiting |= {genome: self._queue.pop(genome) for genome in asked}
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the distribution moves when the generation is complete."""
        ordered = checked(observations, len(self._genes), 1)
        self._restarts.elite.add(ordered)
        for observation in ordered:
            genome = snapped(self._genes, genome_of(observation))
            self._told += [(point, observation) for point in self._waiting.pop(genome, [])]
            if self._countable:
                self._known[genome] = observation
        if self._told and not self._waiting and not self._queue:
            self._update()

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the middle of the top 8."""
        return self._restarts.recommend()

    def _draw(self) -> None:
        """The next generation that is not known from end to end; where none comes, points near the best."""
        for _ in range(IDLE):
            self._sort(self._restarts.distribution.draw())
            if self._queue:
                return
            self._update()
        near = Neighbours(self._genes, self._restarts.rng(len(self._known)), self._known)
        centre = (self._restarts.elite.middle() or [self._restarts.distribution.centre])[0]
        # These move no distribution; what is good among them is where the next one starts.
        self._queue = {near.next_to(centre): [] for _ in range(ELSEWHERE)}

    def _sort(self, points: Sequence[Floats]) -> None:
        """Points to ask for, each genome once, and points of known results."""
        for point in points:
            genome = self._restarts.distribution.genome(point)
            if genome in self._known:
                self._told.append((point, self._known[genome]))
            else:
                self._queue.setdefault(genome, []).append(point)

    def _update(self) -> None:
        told, self._told = self._told, []
        self._restarts.move(told, len(self._known))


class SteadyCma:
    """One result at a time: always another point, from the distribution as it is now.

    It moves with every population of results, in the order they come, whichever distribution their points were drawn
    from: with no more in flight than half a population that costs little. Only where the search began anew in between
    do results move nothing, and count for the elite alone. Known points of discrete genes are as in `Cma`. `given` are
    results that the start was chosen from; better ones of points never asked for that come before the first move
    correct it.
    """

    generation = None

    def __init__(self, genes: Sequence[Gene], restarts: Restarts, given: Sequence[Observation]) -> None:
        self._genes = genes
        self._countable = all(gene.discrete for gene in genes)
        self._restarts = restarts
        self._known: dict[Genome, Observation] = {}
        self._waiting: dict[Genome, list[tuple[int, Floats]]] = {}  # Points, and which restart they come from.
        self._told: list[tuple[Floats, Observation]] = []
        self._asked: set[Genome] = set()
        self._elsewhere = 0
        self.tell(given)
        restarts.begin_with(given)

    def ask(self, count: int) -> list[Genome]:
        """As many points as are asked for."""
        asked = [self._drawn() for _ in range(count)]
        self._asked.update(asked)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the distribution moves whenever a population of them is there."""
        ordered = checked(observations, len(self._genes), 1)
        self._restarts.elite.add(ordered)
        for observation in ordered:
            genome = snapped(self._genes, genome_of(observation))
            if self._countable:
                self._known[genome] = observation
            if genome not in self._asked:
                self._restarts.reconsider(observation)
            for begun, point in self._waiting.pop(genome, []):
                if begun == self._restarts.count:
                    self._take(point, observation)

    def recommend(self) -> list[Genome]:
        """The distribution's centre, and the middle of the top 8."""
        return self._restarts.recommend()

    def _drawn(self) -> Genome:
        """The next point that nobody knows or awaits; where none comes, one near the best."""
        for _ in range(IDLE * self._restarts.population):
            point = self._restarts.distribution.draw(1)[0]
            genome = self._restarts.distribution.genome(point)
            if genome in self._known:
                self._take(point, self._known[genome])
                continue
            awaited = genome in self._waiting
            self._waiting.setdefault(genome, []).append((self._restarts.count, point))
            if not awaited:
                return genome
        self._elsewhere += 1
        near = Neighbours(self._genes, self._restarts.rng(self._elsewhere), {*self._known, *self._waiting})
        found = near.next_to((self._restarts.elite.middle() or [self._restarts.distribution.centre])[0])
        self._waiting.setdefault(found, [])  # It moves no distribution.
        return found

    def _take(self, point: Floats, observation: Observation) -> None:
        """One more result; the distribution moves if it makes a population."""
        self._told.append((point, observation))
        if len(self._told) < self._restarts.population:
            return
        told, self._told = self._told, []
        self._restarts.move(told, len(self._known))
