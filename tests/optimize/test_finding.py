"""That optimisers find what is there to be found: planted optima, corners, a known front."""

import numpy as np
import pytest
from asking import Loop

from evomerge.fitness import Fitness, Objective
from evomerge.optimize.build import Build
from evomerge.results import hypervolume
from evomerge.space import Gene
from evomerge.spec import CmaSpec, Nsga2Spec
from evomerge.trial import Observation
from evomerge.values import Genome


def reals(count: int) -> tuple[Gene, ...]:
    return tuple(Gene(name=f"r{i}", low=0, high=1) for i in range(count))


def regret(name: str, dimension: int, evaluations: int, seed: int, sigma: float | None = None) -> float:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.15, 0.85, dimension)
    spec = CmaSpec(sigma=sigma) if name == "cma" else Nsga2Spec()
    fitness = Fitness(objectives={"0": Objective(task="t")})
    optimizer = Build(spec, reals(dimension), 1, (), fitness.scalar, seed)()
    loop = Loop(optimizer, 1, lambda genome: (-float(((np.asarray(genome) - target) ** 2).mean()),))
    loop.run(evaluations)
    return min(float(((np.asarray(genome) - target) ** 2).mean()) for genome in loop.asked)


@pytest.mark.parametrize(
    ("name", "dimension", "evaluations", "most"),
    [("cma", 6, 200, 0.008), ("cma", 12, 400, 0.004), ("cma", 44, 800, 0.007), ("nsga2", 12, 400, 0.015)],
)
def test_a_planted_optimum_is_found(name: str, dimension: int, evaluations: int, most: float) -> None:
    sigma = 1 / 6 if name == "cma" else None
    assert max(regret(name, dimension, evaluations, seed, sigma) for seed in range(5)) < most


def test_cma_finds_an_optimum_in_a_corner() -> None:
    target = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    fitness = Fitness(objectives={"0": Objective(task="t")})
    optimizer = Build(CmaSpec(sigma=1 / 6), reals(6), 1, (), fitness.scalar, 2)()
    loop = Loop(optimizer, 1, lambda genome: (-float(((np.asarray(genome) - target) ** 2).mean()),))
    loop.run(200)
    assert min(float(((np.asarray(g) - target) ** 2).mean()) for g in loop.asked) < 0.006


def test_nsga2_approaches_a_known_front() -> None:
    """ZDT1 in six dimensions: hypervolume above half of the true front's after 600 evaluations."""

    def zdt1(genome: Genome) -> tuple[float, float]:
        g = 1 + 9 * sum(genome[1:]) / 5
        return -genome[0], -g * (1 - (genome[0] / g) ** 0.5)

    fitness = Fitness(objectives={str(i): Objective(task="t") for i in range(2)})
    optimizer = Build(Nsga2Spec(), reals(6), 2, (), fitness.scalar, 4)()
    loop = Loop(optimizer, 2, zdt1)
    points = [zdt1(genome) for genome in loop.run(600)]
    inside = [point for point in points if min(point) > -1.1]
    ideal = [(-x, -(1 - x**0.5)) for x in np.linspace(0, 1, 500)]
    assert hypervolume(inside, (-1.1, -1.1)) > 0.5 * hypervolume(ideal, (-1.1, -1.1))


def test_cma_starts_again_with_twice_the_population_where_it_has_converged() -> None:
    """Two hills: the search climbs one, has nothing more to find there, and goes on looking."""

    def hills(genome: Genome) -> tuple[float]:
        near, far = (float(((np.asarray(genome) - at) ** 2).sum()) for at in (0.2, 0.9))
        return (max(-near, 0.5 - 40 * far),)

    optimizer = Build(
        CmaSpec(population=6, sigma=0.1),
        reals(2),
        1,
        ((0.2, 0.2),),
        Fitness(objectives={"0": Objective(task="t")}).scalar,
        1,
    )()
    loop = Loop(optimizer, 1, hills)
    sizes = set()
    while len(loop.asked) < 800:
        loop.run(len(loop.asked) + 1)
        sizes.add(optimizer.generation)
    assert {6, 12, 24} <= sizes
    late = np.array(loop.asked[-300:])
    assert late.std(axis=0).max() > 0.02, "it is spread out anew, not stuck"


def test_a_seed_that_was_only_lucky_is_not_where_the_search_starts() -> None:
    lucky, sound = (0.1,) * 4, (0.7,) * 4
    fitness = Fitness(objectives={"0": Objective(task="t")})
    optimizer = Build(CmaSpec(population=6, sigma=0.05), reals(4), 1, (lucky, sound), fitness.scalar, 1)()
    assert optimizer.ask(2) == [lucky, sound]
    optimizer.tell([seen(0, lucky, 0.9), seen(1, sound, 0.6)])
    around = optimizer.ask(10)
    optimizer.tell([seen(2 + i, genome, 0.1) for i, genome in enumerate(around)] + [seen(0, lucky, 0.2)])
    for genome in optimizer.ask(6):
        assert np.abs(np.array(genome) - sound).max() < 0.3


def seen(number: int, genome: Genome, utility: float) -> Observation:
    return Observation(number=number, genome=genome, utilities=(utility,))


def test_a_better_point_of_the_design_that_comes_late_corrects_where_cma_begins() -> None:
    """The even merge, which is the best there is, comes back after half of what is around the others."""
    fitness = Fitness(objectives={"0": Objective(task="t")})
    seeds = ((0.0,) * 6, (1.0,) * 6, (0.5,) * 6)
    optimizer = Build(CmaSpec(mode="steady", population=16), reals(6), 1, seeds, fitness.scalar, 3)()

    def told(number: int, genome: Genome) -> None:
        loss = float(((np.asarray(genome) - 0.5) ** 2).mean())
        optimizer.tell([Observation(number=number, genome=genome, utilities=(-loss,))])

    asked = optimizer.ask(3)
    for number in range(2):
        told(number, asked[number])
    around = optimizer.ask(13)
    near_even = sum(float(np.abs(np.asarray(genome) - 0.5).max()) <= 0.25 for genome in around)
    assert near_even == 4, "one in three is around the seed that is still in flight"
    far = [genome for genome in around if np.abs(np.asarray(genome) - 0.5).max() > 0.25]
    for number, genome in enumerate(far, start=3):
        told(number, genome)
    before = optimizer.recommend()[0]
    told(2, asked[2])
    after = optimizer.recommend()[0]
    assert np.abs(np.asarray(before) - 0.5).max() > 0.2
    assert np.allclose(after, 0.5)
