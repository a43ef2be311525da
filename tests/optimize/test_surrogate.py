"""That a search by a model of all scores finds what others do not, from whatever it is told."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from answering import Exam

from evomerge.fitness import Fitness, Objective
from evomerge.learn.losses import SHARPENING
from evomerge.optimize import Optimizer
from evomerge.optimize.build import Build
from evomerge.optimize.region import NARROWEST, RADIUS, WIDEST, Region, tradeoffs
from evomerge.optimize.surrogate import Surrogate
from evomerge.results import hypervolume
from evomerge.space import Gene
from evomerge.spec import CmaSpec, Nsga2Spec, SurrogateSpec
from evomerge.trial import Observation
from evomerge.values import Genome

SEARCH, HELD_OUT = range(80), range(80, 160)
Teller = Callable[[int, Genome], Observation]


def reals(count: int) -> tuple[Gene, ...]:
    return tuple(Gene(name=f"g{i}", low=0, high=1) for i in range(count))


def run(optimizer: Optimizer, tell: Teller, count: int) -> list[Observation]:
    """So many candidates, told in the groups in which they are asked for."""
    told: list[Observation] = []
    while len(told) < count:
        group: list[Observation] = []
        while found := optimizer.ask(1):
            group.append(tell(len(told) + len(group), found[0]))
            if optimizer.generation is None:
                break
        optimizer.tell(group)
        told += group
    return told


def surrogate(exam: Exam, seed: int = 0, genes: Sequence[Gene] = (), *, steady: bool = False) -> Surrogate:
    return Surrogate(genes or reals(len(exam.hidden)), [{"t": exam.questions}], seed=seed, steady=steady)


def test_scores_say_more_than_marks() -> None:
    """Against CMA-ES on the same items, with the same number of candidates: held out, over four exams."""
    found = []
    for seed in range(4):
        exam = Exam(8, 160, seed)
        fitness = Fitness(objectives={"0": Objective(task="t")})
        cma = Build(CmaSpec(), reals(8), 1, (), fitness.scalar, seed)()
        row = []
        for optimizer in (surrogate(exam, seed), cma):
            run(optimizer, lambda number, genome, exam=exam: exam.observation(number, genome, SEARCH), 80)
            row.append(exam.accuracy(optimizer.recommend()[0], HELD_OUT))
        found.append(row)
    ours, theirs = np.mean(found, axis=0)
    assert ours > theirs + 0.1 and ours > 0.7


@pytest.mark.parametrize("count", [25, 50])
def test_every_candidate_may_get_items_of_its_own(count: int) -> None:
    exam = Exam(6, 160, 3)
    rng = np.random.default_rng(1)

    def tell(number: int, genome: Genome) -> Observation:
        return exam.observation(number, genome, [int(row) for row in rng.choice(80, count, replace=False)])

    optimizer = surrogate(exam)
    run(optimizer, tell, 80)
    assert exam.accuracy(optimizer.recommend()[0], HELD_OUT) > exam.accuracy((0.5,) * 6, HELD_OUT) + 0.2


def test_what_failed_is_never_asked_again_and_the_best_beside_it_is_found() -> None:
    """The best point lies where a quarter of the cube fails: the search is drawn to its border."""
    exam = Exam(4, 160, 1, np.array([0.8, 0.6, 0.4, 0.3]))

    def tell(number: int, genome: Genome) -> Observation:
        if genome[0] > 0.75:
            return Observation(number=number, genome=genome, utilities=None)
        return exam.observation(number, genome, SEARCH)

    told = run(surrogate(exam), tell, 80)
    assert len({observation.genome for observation in told}) == len(told)
    assert sum(observation.utilities is None for observation in told) < 40
    assert max(exam.accuracy(o.genome, HELD_OUT) for o in told if o.utilities is not None and o.genome) > 0.8


def test_noise_and_items_without_finite_scores_do_no_harm() -> None:
    exam = Exam(6, 160, 3)
    rng = np.random.default_rng(2)

    def tell(number: int, genome: Genome) -> Observation:
        whole = exam.observation(number, genome, SEARCH)
        noisy = [tuple(np.array(each) + 0.3 * rng.standard_normal(len(each))) for each in (whole.scores or {})["t"]]
        noisy[int(rng.integers(80))] = (-np.inf,) * 2
        return Observation.model_construct(**{**dict(whole), "scores": {"t": tuple(noisy)}})

    optimizer = surrogate(exam)
    run(optimizer, tell, 80)
    assert exam.accuracy(optimizer.recommend()[0], HELD_OUT) > exam.accuracy((0.5,) * 6, HELD_OUT) + 0.2


@pytest.mark.parametrize("steady", [False, True])
def test_a_replay_goes_on_bit_for_bit(steady: bool) -> None:
    """With failures, results that come late and in any order, and recommendations asked for between."""
    exam = Exam(5, 60, 2)
    rng = random.Random(3)
    first, events, flying, asked = surrogate(exam, 4, steady=steady), [], [], 0
    while asked < 45:
        found = first.ask(1)
        for genome in found:
            events.append(("asked", genome))
            failed = rng.random() < 0.1
            observation = exam.observation(asked, genome, sorted(rng.sample(range(60), 40)))
            flying.append(Observation(number=asked, genome=genome, utilities=None) if failed else observation)
            asked += 1
        if not found or (steady and len(flying) > 3):
            rng.shuffle(flying)
            told, flying = (flying[:2], flying[2:]) if steady else (flying, [])
            plain = [Observation.model_validate_json(each.model_dump_json()) for each in told]
            events.append(("told", plain))
            first.tell(told)
            first.recommend()
    again = surrogate(exam, 4, steady=steady)
    for kind, value in events:
        if kind == "asked":
            assert again.ask(1) == [value]
        else:
            again.tell(value)
    assert again.recommend() == first.recommend() and again.ask(3) == first.ask(3)


def test_several_in_flight_and_results_in_any_order() -> None:
    exam, rng = Exam(6, 160, 3), random.Random(1)
    optimizer, asked, flying = surrogate(exam, steady=True), [], []
    while len(asked) < 90:
        for genome in optimizer.ask(6 - len(flying)):
            flying.append(len(asked))
            asked.append(genome)
        number = flying.pop(rng.randrange(len(flying)))
        optimizer.tell([exam.observation(number, asked[number], SEARCH)])
    assert len(set(asked)) == len(asked)
    assert exam.accuracy(optimizer.recommend()[0], HELD_OUT) > exam.accuracy((0.5,) * 6, HELD_OUT) + 0.2


def test_a_front_between_two_exams_is_wider_than_nsga2_s() -> None:
    """With half the candidates; the exams agree on half of the genes."""
    one, other = np.random.default_rng(0).uniform(0.2, 0.8, (2, 8))
    exams = [Exam(8, 160, 5, one), Exam(8, 160, 6, np.array([*other[:4], *one[4:]]))]
    fitness = Fitness(objectives={name: Objective(task=name) for name in "ab"})

    def tell(number: int, genome: Genome) -> Observation:
        utilities = tuple(exam.accuracy(genome, SEARCH) for exam in exams)
        scores = {name: exam.scores(genome, SEARCH) for name, exam in zip("ab", exams, strict=True)}
        rows = {name: tuple(SEARCH) for name in scores}
        return Observation(number=number, genome=genome, utilities=utilities, rows=rows, scores=scores)

    subjects = tuple({name: exam.questions} for name, exam in zip("ab", exams, strict=True))
    volumes = []
    for spec, count in ((SurrogateSpec(), 60), (Nsga2Spec(population=12), 120)):
        build = Build(spec, reals(8), 2, ((0.3,) * 8, (0.7,) * 8), fitness.scalar, 1, subjects)
        genomes = [observation.genome or () for observation in run(build(), tell, count)]
        points = [(exams[0].accuracy(g, HELD_OUT), exams[1].accuracy(g, HELD_OUT)) for g in genomes]
        volumes.append(hypervolume(points, (0.25, 0.25)))
    assert volumes[0] > volumes[1] + 0.05


def test_switches_and_categories_are_found_beside_numbers() -> None:
    """Two switches and a category decide which of the waves there are."""
    genes = (
        *reals(4),
        Gene(name="on", low=0, high=1, levels=1, kind="binary"),
        Gene(name="off", low=0, high=1, levels=1, kind="binary"),
        Gene(name="which", low=0, high=3, levels=3, kind="categorical"),
    )
    hidden = np.array([0.4, 0.6, 0.5, 0.3, 1.0, 0.0, 2 / 3])
    found = []
    for seed in range(3):
        exam = Exam(7, 160, seed, hidden)
        optimizer = surrogate(exam, seed, genes)
        run(optimizer, lambda number, genome, exam=exam: exam.observation(number, genome, SEARCH), 80)
        best = optimizer.recommend()[0]
        assert all(gene.snapped(unit) == unit for gene, unit in zip(genes, best, strict=True))
        found.append(exam.accuracy(best, HELD_OUT))
    assert np.mean(found) > 0.8


def test_new_items_are_made_known_around_the_best_point() -> None:
    exam = Exam(6, 160, 3)
    optimizer = surrogate(exam)
    told = run(optimizer, lambda number, genome: exam.observation(number, genome, range(20)), 40)
    told += run(optimizer, lambda number, genome: exam.observation(40 + number, genome, SEARCH), 4)
    around = run(optimizer, lambda number, genome: exam.observation(44 + number, genome, SEARCH), 8)
    home, *others = [np.array(observation.genome) for observation in around[:7]]
    assert min(np.linalg.norm(np.array(o.genome) - home) for o in told) < 0.15, "one that was known already"
    assert [np.linalg.norm(other - home) for other in others] == pytest.approx([RADIUS * np.sqrt(6) / 2] * 6, abs=0.1)
    run(optimizer, lambda number, genome: exam.observation(52 + number, genome, SEARCH), 28)
    assert exam.accuracy(optimizer.recommend()[0], HELD_OUT) > 0.75


def test_a_region_grows_where_hopes_come_true_and_turns_to_a_sharper_loss_where_nothing_is_gained() -> None:
    region = Region(np.ones(1))
    region.learn(gain=0.5, hoped=0.6, before=1.0)
    assert region.radius == RADIUS * 1.25 and region.loss is SHARPENING[0]
    region.learn(gain=0.05, hoped=0.6, before=1.0)
    assert region.radius == RADIUS
    region.learn(gain=0.001, hoped=0.6, before=1.0)
    assert region.loss is SHARPENING[1]
    for _ in range(40):
        region.learn(gain=-0.1, hoped=0.6, before=1.0)
    assert region.radius == NARROWEST and region.loss is SHARPENING[-1]
    for _ in range(40):
        region.learn(gain=0.5, hoped=0.6, before=1.0)
    assert region.radius == WIDEST


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_tradeoffs_are_shares_and_every_objective_has_one_of_its_own(objectives: int) -> None:
    found = np.array(tradeoffs(objectives))
    assert found.sum(1) == pytest.approx(1) and (found >= 0).all()
    assert set(found.argmax(1)) == set(range(objectives))
