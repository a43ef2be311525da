"""NSGA-II for several objectives (Deb et al. 2002), by pymoo."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowdingSurvival
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from evomerge.optimize.checks import Elite, checked, genome_of, losses_of
from evomerge.optimize.kinds import snapped
from evomerge.optimize.variation import Crossing, Drawing, Mutating, Snapping, Unknown
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome


class Nsga2:
    """One generation at a time, from a first population that is already evaluated if there is one.

    If `steady`, one child at a time: always another one, of the population as it is now, which every result may enter.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        objectives: int,
        *,
        seed: int,
        population: int = 20,
        steady: bool = False,
        initial: Sequence[Observation] = (),
    ) -> None:
        self._genes = genes
        self._steady = steady
        self._objectives = objectives
        self._population = population
        self._elite = Elite(genes)
        self._known: set[Genome] = set()
        self._queue: list[Individual] = []
        self._waiting: dict[Genome, list[Individual]] = {}
        self._told: list[Individual] = []
        self._problem = Problem(n_var=len(genes), n_obj=objectives, xl=0.0, xu=1.0)
        start = checked(initial, len(genes), objectives)
        options = self._operators()
        if start:
            options["sampling"] = np.array([self._genome(genome_of(o)) for o in start])
        self._algorithm = NSGA2(pop_size=population, n_offsprings=1 if steady else None, **options)
        self._algorithm.setup(self._problem, termination=NoTermination(), seed=seed)
        if start:
            self._seed_population(start)

    @property
    def generation(self) -> int | None:
        """The population, None for steady state."""
        return None if self._steady else self._population

    def ask(self, count: int) -> list[Genome]:
        """The rest of this generation, none while its results are awaited; in steady state as many as are asked for."""
        asked: list[Genome] = []
        while len(asked) < count and (self._queue or self._refilled()):
            individual = self._queue.pop(0)
            genome = self._genome(individual.X)
            self._waiting.setdefault(genome, []).append(individual)
            self._known.add(genome)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the population moves on when the generation is complete, in steady state at once."""
        ordered = checked(observations, len(self._genes), self._objectives)
        self._elite.add(ordered)
        foreign = []
        for observation in ordered:
            genome = self._genome(genome_of(observation))
            waiting = self._waiting.get(genome, [])
            if waiting:
                self._told.append(self._valued(waiting.pop(0), observation))
            elif not self._revised(genome, observation):
                foreign.append(self._valued(Individual(X=np.array(genome)), observation))
            self._known.add(genome)
        self._waiting = {genome: left for genome, left in self._waiting.items() if left}
        if self._complete():
            self._algorithm.tell(infills=Population.create(*self._told))
            self._told = []
        if foreign and self._algorithm.pop is not None:
            self._merge(foreign)

    def recommend(self) -> list[Genome]:
        """Nothing for several objectives, whose front speaks for itself; the middle of the top 8 for one."""
        return self._elite.middle() if self._objectives == 1 else []

    def _operators(self) -> dict[str, Any]:
        """What pymoo is to do otherwise than it does with reals."""
        if not any(gene.discrete for gene in self._genes):
            return {}
        return {
            "sampling": Drawing(self._genes),
            "crossover": Crossing(self._genes),
            "mutation": Mutating(self._genes),
            "repair": Snapping(self._genes),
            "eliminate_duplicates": Unknown(self._known),
        }

    def _genome(self, point: Sequence[float]) -> Genome:
        return snapped(self._genes, point)

    def _refilled(self) -> bool:
        """Line up what is asked next; whether there is anything."""
        if not self._steady and (self._waiting or self._told):
            return False
        begun, algorithm = self._algorithm.pop is not None, self._algorithm
        # Beside a first population that was asked and is not there yet, only chance has anything to propose.
        found = None if begun and not algorithm.is_initialized else algorithm.ask()
        self._queue = list(found if found is not None and len(found) else self._strangers())
        return True

    def _complete(self) -> bool:
        """Whether what was told may enter the population; a part of the first one would be all of it for ever."""
        if self._steady:
            return len(self._told) >= (1 if self._algorithm.is_initialized else self._population)
        return bool(self._told) and not self._waiting and not self._queue

    def _strangers(self) -> Population:
        """Random points where mating finds none that are new; some of these may be known, too."""
        self._algorithm.termination.force_termination = False
        count, rng = self._algorithm.n_offsprings, self._algorithm.random_state
        return Drawing(self._genes).do(self._problem, count, random_state=rng)

    def _seed_population(self, start: Sequence[Observation]) -> None:
        known = {self._genome(genome_of(o)): o for o in start}
        self._elite.add(start)
        first = self._algorithm.ask()
        valued = [self._valued(one, known[self._genome(one.X)]) for one in first]
        self._algorithm.tell(infills=Population.create(*valued))
        self._known.update(known)

    def _valued(self, individual: Individual, observation: Observation) -> Individual:
        """The individual with its losses."""
        losses = np.array(losses_of(observation, self._objectives))
        individual.F, individual.G, individual.H = losses, np.zeros(0), np.zeros(0)
        return individual

    def _revised(self, genome: Genome, observation: Observation) -> bool:
        """Put a better estimate in place of the old one, for members of the population and of the next one."""
        members = [*self._told, *(self._algorithm.pop if self._algorithm.pop is not None else [])]
        same = [member for member in members if self._genome(member.X) == genome]
        for member in same:
            self._valued(member, observation)
        return bool(same)

    def _merge(self, foreign: Sequence[Individual]) -> None:
        everybody = Population.merge(self._algorithm.pop, Population.create(*foreign))
        survival = RankAndCrowdingSurvival()
        # Without a generator of its own pymoo breaks ties by one that nobody seeded.
        rng = self._algorithm.random_state
        self._algorithm.pop = survival.do(self._problem, everybody, n_survive=self._population, random_state=rng)
