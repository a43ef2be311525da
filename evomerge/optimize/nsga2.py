"""NSGA-II for several objectives (Deb et al. 2002), by pymoo."""

from collections.abc import Sequence

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowdingSurvival
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from evomerge.optimize.checks import Elite, checked, genome_of, losses_of
from evomerge.trial import Observation
from evomerge.values import Genome


class Nsga2:
    """One generation at a time, from a first population that is already evaluated if there is one."""

    def __init__(
        self,
        dimension: int,
        objectives: int,
        *,
        seed: int,
        population: int = 20,
        initial: Sequence[Observation] = (),
    ) -> None:
        self._dimension = dimension
        self._objectives = objectives
        self._population = population
        self._elite = Elite()
        self._queue: list[Individual] = []
        self._waiting: dict[Genome, list[Individual]] = {}
        self._told: list[Individual] = []
        self._problem = Problem(n_var=dimension, n_obj=objectives, xl=0.0, xu=1.0)
        start = checked(initial, dimension, objectives)
        sampling = {"sampling": np.array([genome_of(o) for o in start])} if start else {}
        self._algorithm = NSGA2(pop_size=population, **sampling)
        self._algorithm.setup(self._problem, termination=NoTermination(), seed=seed)
        if start:
            self._seed_population(start)

    @property
    def generation(self) -> int:
        """The population."""
        return self._population

    def ask(self, count: int) -> list[Genome]:
        """The rest of this generation, none while its results are awaited."""
        if not self._queue and not self._waiting and not self._told:
            self._queue = list(self._algorithm.ask())
        asked: list[Genome] = []
        while self._queue and len(asked) < count:
            individual = self._queue.pop(0)
            genome = tuple(float(x) for x in individual.X)
            self._waiting.setdefault(genome, []).append(individual)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; the population moves on when the generation is complete."""
        ordered = checked(observations, self._dimension, self._objectives)
        self._elite.add(ordered)
        foreign = []
        for observation in ordered:
            waiting = self._waiting.get(genome_of(observation), [])
            if waiting:
                self._told.append(self._valued(waiting.pop(0), observation))
            elif not self._revised(observation):
                foreign.append(self._valued(Individual(X=np.array(observation.genome)), observation))
        self._waiting = {genome: left for genome, left in self._waiting.items() if left}
        if self._told and not self._waiting and not self._queue:
            self._algorithm.tell(infills=Population.create(*self._told))
            self._told = []
        if foreign and self._algorithm.pop is not None:
            self._merge(foreign)

    def recommend(self) -> list[Genome]:
        """Nothing for several objectives, whose front speaks for itself; the mean of the top 8 for one."""
        return self._elite.mean() if self._objectives == 1 else []

    def _seed_population(self, start: Sequence[Observation]) -> None:
        known = {genome_of(o): o for o in start}
        self._elite.add(start)
        first = self._algorithm.ask()
        valued = [self._valued(one, known[tuple(float(x) for x in one.X)]) for one in first]
        self._algorithm.tell(infills=Population.create(*valued))

    def _valued(self, individual: Individual, observation: Observation) -> Individual:
        """The individual with its losses."""
        losses = np.array(losses_of(observation, self._objectives))
        individual.F, individual.G, individual.H = losses, np.zeros(0), np.zeros(0)
        return individual

    def _revised(self, observation: Observation) -> bool:
        """Put a better estimate in place of the old one, for members of the population."""
        members = self._algorithm.pop if self._algorithm.pop is not None else []
        same = [member for member in members if tuple(float(x) for x in member.X) == observation.genome]
        for member in same:
            self._valued(member, observation)
        return bool(same)

    def _merge(self, foreign: Sequence[Individual]) -> None:
        everybody = Population.merge(self._algorithm.pop, Population.create(*foreign))
        survival = RankAndCrowdingSurvival()
        self._algorithm.pop = survival.do(self._problem, everybody, n_survive=self._population)
