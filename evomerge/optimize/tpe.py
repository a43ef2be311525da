"""The tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna."""

import logging
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from evomerge.optimize.checks import Elite, checked, genome_of, losses_of
from evomerge.trial import Observation
from evomerge.values import Genome


class Tpe:
    """One result at a time, one objective or several."""

    generation = None

    def __init__(self, dimension: int, objectives: int, *, seed: int, initial: Sequence[Observation] = ()) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self._dimension = dimension
        self._objectives = objectives
        self._names = [f"g{i:05}" for i in range(dimension)]
        self._space: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in self._names}
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        self._waiting: dict[Genome, list[int]] = {}
        self._elite = Elite()
        self._known: set[int] = set()
        self.tell(initial)

    def ask(self, count: int) -> list[Genome]:
        """Points that look promising in the light of all results, those still awaited counted as poor."""
        asked = []
        for _ in range(count):
            trial = self._study.ask(self._space)
            genome = tuple(float(trial.params[name]) for name in self._names)
            self._waiting.setdefault(genome, []).append(trial.number)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; a revision is passed over, since Optuna cannot take a result back."""
        ordered = checked(observations, self._dimension, self._objectives)
        self._elite.add(ordered)
        for observation in ordered:
            losses = losses_of(observation, self._objectives)
            waiting = self._waiting.get(genome_of(observation), [])
            if waiting:
                self._study.tell(waiting.pop(0), losses)
            elif observation.number not in self._known:
                params = dict(zip(self._names, genome_of(observation), strict=True))
                self._study.add_trial(create_trial(params=params, distributions=self._space, values=losses))
            if observation.number is not None:
                self._known.add(observation.number)

    def recommend(self) -> list[Genome]:
        """The mean of the top 8, for one objective."""
        return self._elite.mean() if self._objectives == 1 else []
