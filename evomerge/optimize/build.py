"""An optimiser from its spec, with the prior design in front of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from evomerge.learn.sheet import Subject
from evomerge.optimize import Optimizer
from evomerge.optimize.checks import latest
from evomerge.optimize.idle import Idle
from evomerge.optimize.scalarised import Scalar, Scalarised, known_bounds, reduced
from evomerge.optimize.seeded import Design, Seeded
from evomerge.space import Gene
from evomerge.spec import CmaSpec, GradientSpec, Nsga2Spec, OptimizerSpec, RandomSpec, SurrogateSpec, TpeSpec
from evomerge.trial import Observation
from evomerge.values import Genome

SIGMA_FROM_SEEDS = 0.15
SIGMA_FROM_NOTHING = 0.3
FEWEST_AROUND = 4
"""Points drawn around the best seeds, at least; more if the first population is larger than the design."""
BLOCK = 8
"""Candidates that share their items where the optimiser has no population either."""


@dataclass(frozen=True)
class Build:
    """Makes an optimiser from nothing (the prior design comes first) or from observations of an earlier one.

    `subjects` are what is right of the objectives' items, for an optimiser that learns from their scores.
    """

    spec: OptimizerSpec
    genes: tuple[Gene, ...]
    objectives: int
    seeds: tuple[Genome, ...]
    scalar: Scalar
    seed: int
    subjects: tuple[Subject, ...] = ()

    def __call__(self, known: Sequence[Observation] = ()) -> Optimizer:
        """The optimiser; of points told more than once the last observation counts."""
        known = latest(known)
        if self.spec.fronts or self.objectives == 1:
            return self._seeded(known)
        bounds = known_bounds(known)
        inner = self._seeded(reduced(known, self.scalar, bounds))
        return Scalarised(inner, self.scalar, (len(self.genes), self.objectives), bounds)

    def _seeded(self, known: Sequence[Observation]) -> Seeded:
        design = Design(self.genes, self.seeds, self._around(), self.seed, _steady(self.spec))
        return Seeded(design, rank=self._rank, make=self._core, known=known)

    def _around(self) -> int:
        """How many points around the best seeds are asked first; where slopes say where to go there are none."""
        match self.spec:
            case SurrogateSpec() | GradientSpec():
                return 0
            case CmaSpec() | Nsga2Spec() | TpeSpec() | RandomSpec():
                return max(FEWEST_AROUND, first_population(self.spec, len(self.genes)) - len(self.seeds))
            case _:
                assert_never(self.spec)

    def _rank(self, observations: Sequence[Observation]) -> list[Observation]:
        """Best first; failures are left out."""
        valid = [o for o in observations if o.utilities is not None]
        bounds = known_bounds(valid)

        def merit(observation: Observation) -> tuple[float, int]:
            utilities = observation.utilities or ()
            value = utilities[0] if len(utilities) == 1 else self.scalar(utilities, bounds)
            return -value, observation.number or 0

        return sorted(valid, key=merit)

    def _core(self, told: Sequence[Observation]) -> Optimizer:
        match self.spec:
            case CmaSpec():
                return self._cma(self.spec, told)
            case Nsga2Spec():
                from evomerge.optimize.nsga2 import Nsga2

                return Nsga2(
                    self.genes,
                    self.objectives,
                    seed=self.seed,
                    population=self.spec.population,
                    steady=_steady(self.spec),
                    initial=told,
                )
            case TpeSpec():
                from evomerge.optimize.tpe import Tpe

                return Tpe(self.genes, self.objectives, seed=self.seed, initial=told)
            case RandomSpec():
                from evomerge.optimize.sobol import Sobol

                sobol = Sobol(self.genes, self.objectives, seed=self.seed)
                sobol.tell(told)
                return sobol
            case SurrogateSpec():
                return self._surrogate(self.spec, told)
            case GradientSpec():
                return Idle()
            case _:
                assert_never(self.spec)

    def _surrogate(self, spec: SurrogateSpec, told: Sequence[Observation]) -> Optimizer:
        from evomerge.optimize.surrogate import Surrogate

        return Surrogate(
            self.genes,
            self.subjects or ({},) * self.objectives,
            seed=self.seed,
            together=spec.population,
            steady=_steady(spec),
            initial=told,
        )

    def _cma(self, spec: CmaSpec, told: Sequence[Observation]) -> Optimizer:
        from evomerge.optimize.cma import Cma, SteadyCma
        from evomerge.optimize.restarts import Restarts

        best = self._rank(told)[:1]
        restarts = Restarts(
            self.genes,
            seed=self.seed,
            start=best[0].genome if best else None,
            sigma=spec.sigma or (SIGMA_FROM_SEEDS if best else SIGMA_FROM_NOTHING),
            population=first_population(spec, len(self.genes)),
            together=not _steady(spec),
        )
        return (SteadyCma if _steady(spec) else Cma)(self.genes, restarts, told)


def resolve(spec: OptimizerSpec, genes: Sequence[Gene], workers: int = 1) -> OptimizerSpec:
    """The spec with its defaults written out.

    With several `workers` results are told one by one, unless that would leave fewer than two for each of them in a
    population: points would then be drawn in the light of too little.
    """
    if not spec.generations:
        return spec
    population = first_population(spec, len(genes))
    suited = "steady" if 1 < workers <= _busy(spec, population) else "generation"
    return spec.model_copy(update={"population": population, "mode": spec.mode or suited})


def _busy(spec: OptimizerSpec, population: int) -> float:
    """How many workers may be busy with candidates that know nothing of one another; a model misses few of them."""
    match spec:
        case SurrogateSpec() | GradientSpec():
            return math.inf
        case CmaSpec() | Nsga2Spec() | TpeSpec() | RandomSpec():
            return population / 2
        case _:
            assert_never(spec)


def block(spec: OptimizerSpec, genes: Sequence[Gene]) -> int:
    """Candidates that share a draw of items where the optimiser knows no generations: as many as one would have."""
    return first_population(spec, len(genes)) if _steady(spec) else BLOCK


def first_population(spec: OptimizerSpec, dimension: int) -> int:
    """Points of a first generation."""
    match spec:
        case CmaSpec():
            return spec.population or 4 + int(3 * math.log(dimension))
        case Nsga2Spec() | SurrogateSpec():
            return spec.population
        case TpeSpec() | RandomSpec():
            return 10
        case GradientSpec():
            return 1
        case _:
            assert_never(spec)


def _steady(spec: OptimizerSpec) -> bool:
    """Whether results are told one by one by choice; runs that do not say know generations."""
    return spec.mode == "steady"
