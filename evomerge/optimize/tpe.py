"""The tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna."""

import logging
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from evomerge.optimize.checks import Elite, checked, genome_of, losses_of
from evomerge.optimize.kinds import snapped
from evomerge.space import Gene
from evomerge.trial import Observation
from evomerge.values import Genome


class Tpe:
    """One result at a time, one objective or several."""

    generation = None

    def __init__(
        self, genes: Sequence[Gene], objectives: int, *, seed: int, initial: Sequence[Observation] = ()
    ) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self._genes = {f"g{i:05}": gene for i, gene in enumerate(genes)}
        self._objectives = objectives
        self._space = {name: _distribution(gene) for name, gene in self._genes.items()}
        sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        self._waiting: dict[Genome, list[int]] = {}
        self._elite = Elite(genes)
        self._known: set[int] = set()
        self.tell(initial)

    def ask(self, count: int) -> list[Genome]:
        """Points that look promising in the light of all results, those still awaited counted as poor."""
        asked = []
        for _ in range(count):
            trial = self._study.ask(self._space)
            genome = tuple(_unit(gene, trial.params[name]) for name, gene in self._genes.items())
            self._waiting.setdefault(genome, []).append(trial.number)
            asked.append(genome)
        return asked

    def tell(self, observations: Sequence[Observation]) -> None:
        """Results; a revision is passed over, since Optuna cannot take a result back."""
        ordered = checked(observations, len(self._genes), self._objectives)
        self._elite.add(ordered)
        for observation in ordered:
            losses = losses_of(observation, self._objectives)
            genome = snapped(list(self._genes.values()), genome_of(observation))
            waiting = self._waiting.get(genome, [])
            if waiting:
                self._study.tell(waiting.pop(0), losses)
            elif observation.number not in self._known:
                params = {
                    name: gene.level(unit) if gene.discrete else unit
                    for (name, gene), unit in zip(self._genes.items(), genome, strict=True)
                }
                self._study.add_trial(create_trial(params=params, distributions=self._space, values=losses))
            if observation.number is not None:
                self._known.add(observation.number)

    def recommend(self) -> list[Genome]:
        """The middle of the top 8, for one objective."""
        return self._elite.middle() if self._objectives == 1 else []


def _distribution(gene: Gene) -> BaseDistribution:
    """Levels of integers have an order, those of binary and categorical genes have none.

    As integers, binary genes would freeze: three searches of four stood still short of a planted optimum of 24 bits
    that all four found this way, in half the time (200 bits: 29 ms a point, multivariate; 80 ms gene by gene).
    """
    if not gene.discrete or gene.levels is None:
        return FloatDistribution(0.0, 1.0)
    if gene.ordered:
        return IntDistribution(0, gene.levels)
    return CategoricalDistribution(range(gene.levels + 1))


def _unit(gene: Gene, drawn: float) -> float:
    return drawn / gene.levels if gene.discrete and gene.levels is not None else float(drawn)
