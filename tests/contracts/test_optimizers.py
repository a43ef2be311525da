"""What every optimiser keeps to, whatever it is: one suite, run on all of them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import Loop, value
from unions import kinds_of

from evomerge.fitness import Fitness, Objective
from evomerge.optimize import Optimizer
from evomerge.optimize.build import Build
from evomerge.space import Gene
from evomerge.spec import CmaSpec, Nsga2Spec, OptimizerSpec, RandomSpec, SurrogateSpec, TpeSpec
from evomerge.trial import Observation
from evomerge.values import Genome


def one_by_one(spec: OptimizerSpec) -> bool:
    return not spec.generations or spec.mode == "steady"


SPECS: dict[str, OptimizerSpec] = {
    "cma": CmaSpec(),
    "nsga2": Nsga2Spec(population=8),
    "tpe": TpeSpec(),
    "random": RandomSpec(),
    "surrogate": SurrogateSpec(),
    "cma steady": CmaSpec(mode="steady"),
    "nsga2 steady": Nsga2Spec(population=8, mode="steady"),
    "surrogate steady": SurrogateSpec(mode="steady"),
}
LEARNING = {"gradient"}
"""They ask for nothing; `tests/test_learning.py` is theirs."""
assert {spec.kind for spec in SPECS.values()} | LEARNING == set(kinds_of(OptimizerSpec)), "an optimiser without a case"
NAMES = [*SPECS, *(f"{name} mixed" for name in SPECS)]
"""Optimisers of real genes, and the same of genes of all kinds."""
SEEDS = ((0.0,) * 4, (1.0, 0.0, 1.0, 0.5), (0.5, 0.5, 0.0, 1.0))
BOTH = ((name, objectives) for name in NAMES for objectives in (1, 2))
ONE_BY_ONE = [name for name in NAMES if one_by_one(SPECS[name.removesuffix(" mixed")])]
CASES = [pytest.param(name, objectives, id=f"{name}-{objectives}") for name, objectives in BOTH]
REAL = Gene(name="real", low=0, high=1)
KINDS = (
    REAL,
    Gene(name="integer", low=3, high=7, levels=4, kind="integer"),
    Gene(name="binary", low=0, high=1, levels=1, kind="binary"),
    Gene(name="categorical", low=0, high=2, levels=2, kind="categorical"),
)


def genes_of(name: str, dimension: int = 4) -> tuple[Gene, ...]:
    return tuple(KINDS[i % 4] if name.endswith("mixed") else REAL for i in range(dimension))


def build(name: str, objectives: int = 1, *, dimension: int = 4, seed: int = 3, seeded: bool = True) -> Optimizer:
    fitness = Fitness(objectives={str(i): Objective(task="t") for i in range(objectives)})
    seeds = tuple(s[:dimension] for s in SEEDS) if seeded and dimension <= 4 else ()
    genes = genes_of(name, dimension)
    return Build(SPECS[name.removesuffix(" mixed")], genes, objectives, seeds, fitness.scalar, seed)()


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_genomes_are_points_of_the_unit_cube(name: str, objectives: int) -> None:
    for genome in Loop(build(name, objectives), objectives).run(40):
        assert len(genome) == 4
        assert all(type(x) is float and 0.0 <= x <= 1.0 for x in genome)
        assert all(gene.snapped(x) == x for gene, x in zip(genes_of(name), genome, strict=True)), "between two levels"


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_asking_one_by_one_is_asking_for_several(name: str, objectives: int) -> None:
    one, several = (build(name, objectives) for _ in range(2))
    for _ in range(6):
        together = several.ask(5)
        apart = [genome for _ in range(5) for genome in one.ask(1)]
        assert apart == together
        if not together:
            break
        if one.generation is None:
            observations = [
                Observation(number=i, genome=g, utilities=value(g, objectives)) for i, g in enumerate(together)
            ]
            one.tell(observations)
            several.tell(observations)


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_a_seed_is_a_stream(name: str, objectives: int) -> None:
    streams = [Loop(build(name, objectives, seed=seed), objectives).run(45) for seed in (0, 0, 1, 2)]
    assert streams[0] == streams[1]
    assert len({tuple(stream[20:]) for stream in streams}) == 3


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_global_generators_are_left_alone_and_do_not_matter(name: str, objectives: int) -> None:
    undisturbed = Loop(build(name, objectives), objectives).run(40)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    loop = Loop(build(name, objectives), objectives)
    loop.run(40)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert loop.asked == undisturbed


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_two_instances_do_not_disturb_each_other(name: str, objectives: int) -> None:
    alone = Loop(build(name, objectives), objectives).run(36)
    first, second = (Loop(build(name, objectives), objectives) for _ in range(2))
    for count in range(3, 39, 3):
        first.run(count)
        second.run(count)
    assert first.asked[:36] == second.asked[:36] == alone


REPLAY = """
import json, sys
sys.path[:0] = sys.argv[1:]
from test_optimizers import build, Observation
plain = json.load(sys.stdin)
optimizer = build(plain["name"], plain["objectives"])
for kind, entry in plain["events"]:
    if kind == "asked":
        assert [list(g) for g in optimizer.ask(1)] == [entry], "the replay asks something else"
    else:
        optimizer.tell([Observation.model_validate_json(json.dumps(o)) for o in entry])
found = []
while len(found) < 10 and (asked := optimizer.ask(1)):
    found += asked
    if optimizer.generation is None:
        break
print(json.dumps(found))
"""


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_a_replay_in_a_fresh_process_goes_on_bit_for_bit(name: str, objectives: int) -> None:
    """Cut in the middle of a generation, results in flight, ties among them, another hash seed."""
    optimizer = build(name, objectives)
    rng = random.Random(5)
    events: list[tuple[str, object]] = []
    pending: list[Observation] = []
    asked: list[Genome] = []
    while len(asked) < 33:
        found = optimizer.ask(1)
        for genome in found:
            events.append(("asked", list(genome)))
            utilities = tuple(round(u, 2) for u in value(genome, objectives))
            failed = rng.random() < 0.1
            pending.append(Observation(number=len(asked), genome=genome, utilities=None if failed else utilities))
            asked.append(genome)
        if not found or (optimizer.generation is None and len(pending) > 4):
            rng.shuffle(pending)
            told, pending = (pending, []) if optimizer.generation is not None else (pending[:3], pending[3:])
            events.append(("told", [json.loads(o.model_dump_json()) for o in told]))
            optimizer.tell(told)
    plain = {"name": name, "objectives": objectives, "events": events}
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(here), str(here.parent)],
        input=json.dumps(plain),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [tuple(genome) for genome in json.loads(done.stdout)]
    ours: list[Genome] = []
    while len(ours) < 10 and (more := optimizer.ask(1)):
        ours += more
        if optimizer.generation is None:
            break
    assert ours == theirs


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_the_order_of_a_batch_does_not_matter(name: str, objectives: int) -> None:
    """Also when results tie."""

    def stream(*, backwards: bool) -> list[Genome]:
        loop = Loop(build(name, objectives), objectives, lambda g: tuple(round(u, 1) for u in value(g, objectives)))
        plain = loop.tell

        def tell() -> None:
            if backwards:
                loop.pending.reverse()
            plain()

        loop.tell = tell  # type: ignore[method-assign]
        return loop.run(40, width=5)

    assert stream(backwards=False) == stream(backwards=True)


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_points_never_asked_and_revisions_are_welcome(name: str, objectives: int) -> None:
    loop = Loop(build(name, objectives), objectives)
    loop.run(20)
    good = (0.3,) * 4
    loop.optimizer.tell([Observation(number=None, genome=good, utilities=(0.0,) * objectives)])
    loop.optimizer.tell([Observation(number=2, genome=loop.asked[2], utilities=(-0.5,) * objectives)])
    assert len(loop.run(50)) == 50


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_seeds_come_first_and_once_and_matter(name: str, objectives: int) -> None:
    loop = Loop(build(name, objectives), objectives)
    loop.run(40)
    assert loop.asked[: len(SEEDS)] == list(SEEDS)
    others = Loop(build(name, objectives), objectives, lambda g: tuple(-u for u in value(g, objectives)))
    assert others.run(40)[len(SEEDS) :] != loop.asked[len(SEEDS) :]


@pytest.mark.parametrize(("name", "objectives"), CASES)
@pytest.mark.parametrize("wrong", [(0.5, 0.5, 0.5), (0.5,) * 5])
def test_a_genome_of_another_length_is_refused(name: str, objectives: int, wrong: Genome) -> None:
    loop = Loop(build(name, objectives, seeded=False), objectives)
    loop.run(3)
    with pytest.raises(ValueError, match="4 genes"):
        loop.optimizer.tell([Observation(number=None, genome=wrong, utilities=(0.0,) * objectives)])


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_another_number_of_objectives_is_refused(name: str, objectives: int) -> None:
    loop = Loop(build(name, objectives, seeded=False), objectives)
    with pytest.raises(ValueError, match="utilities were expected"):
        loop.optimizer.tell([Observation(number=None, genome=(0.5,) * 4, utilities=(0.0,) * (objectives + 1))])


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_failures_rank_last_and_never_stop_it(name: str, objectives: int) -> None:
    """A third of the cube fails, the rest is far below zero; the search leaves that third. Then everything fails."""

    def worth(genome: Genome) -> tuple[float, ...] | None:
        return None if genome[0] > 0.66 else tuple(utility - 70 for utility in value(genome, objectives))

    loop = Loop(build(name, objectives, seeded=False), objectives, worth)
    loop.run(120, width=4)
    if not name.startswith("random"):
        assert sum(genome[0] > 0.66 for genome in loop.asked[-40:]) < 8, "of 13 by chance"
    loop.worth = lambda _: None
    assert len(loop.run(180, width=4)) == 180
    loop.worth = lambda g: value(g, objectives)
    assert len(loop.run(200, width=4)) == 200


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_flat_fitness_never_stops_it(name: str, objectives: int) -> None:
    count = 300 if not name.startswith("tpe") else 60
    loop = Loop(build(name, objectives), objectives, lambda _: (0.5,) * objectives)
    assert len(set(loop.run(count, width=7))) > count * 0.8


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_lists_and_arrays_are_its_own(name: str, objectives: int) -> None:
    loop = Loop(build(name, objectives), objectives)
    loop.run(9)
    twin = Loop(build(name, objectives), objectives)
    twin.run(9)
    loop.optimizer.ask(1).clear()
    assert loop.optimizer.ask(1) == twin.optimizer.ask(2)[1:]
    told = [Observation(number=None, genome=(0.2,) * 4, utilities=(0.1,) * objectives)]
    copy = list(told)
    loop.optimizer.tell(told)
    assert told == copy


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimension", [1, 2, 300, 1000])
def test_any_dimension(name: str, dimension: int) -> None:
    count = 30 if not name.startswith("tpe") or dimension < 300 else 3
    loop = Loop(build(name, dimension=dimension), 1)
    assert all(len(genome) == dimension for genome in loop.run(count))
    assert all(len(genome) == dimension for genome in loop.optimizer.recommend())


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_nothing_is_written_where_it_runs(
    name: str, objectives: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Loop(build(name, objectives), objectives).run(40)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_recommendations_are_genomes(name: str, objectives: int) -> None:
    loop = Loop(build(name, objectives), objectives)
    loop.run(45)
    for genome in loop.optimizer.recommend():
        assert all(0.0 <= x <= 1.0 for x in genome)
        assert all(gene.snapped(x) == x for gene, x in zip(genes_of(name), genome, strict=True))
    if objectives == 1:
        assert loop.optimizer.recommend()
    if name.startswith("cma") and objectives == 1:
        assert len(loop.optimizer.recommend()) == 2


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_with_64_in_flight_it_always_has_another_point(name: str, objectives: int) -> None:
    """Once as much of the design is there as it waits for; results come one by one in any order, some very late."""
    optimizer = build(name, objectives)
    count, rng = 80 if name.startswith("tpe") else 400, random.Random(2)
    asked: list[Genome] = []
    pending: list[int] = []
    while len(asked) < count:
        found = optimizer.ask(64 - len(pending))
        assert optimizer.generation is None or len(asked) <= 12, "still the design"
        assert len(found) == 64 - len(pending) or len(asked) <= 12
        pending += range(len(asked), len(asked) + len(found))
        asked += found
        number = pending.pop(rng.randrange(len(pending)))
        optimizer.tell([Observation(number=number, genome=asked[number], utilities=value(asked[number], objectives))])
    if "mixed" not in name:
        assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("name", [name for name in NAMES if "steady" in name])
def test_a_number_told_again_moves_nothing_twice(name: str) -> None:
    """Nor does a straggler of the design that comes long after it."""
    once, again = (Loop(build(name), 1) for _ in range(2))
    once.run(60)
    while len(again.asked) < 60:
        again.run(len(again.asked) + 1)
        number = len(again.asked) - 1
        again.optimizer.tell([again.observation(number), again.observation(number)])
    assert again.asked == once.asked


@pytest.mark.parametrize("name", [name for name in NAMES if "steady" in name])
def test_the_design_waits_for_no_straggler(name: str) -> None:
    """The base never comes back, and whatever is asked after it does."""
    optimizer = build(name)
    base = optimizer.ask(1)
    for number in range(1, 60):
        (genome,) = optimizer.ask(1)
        optimizer.tell([Observation(number=number, genome=genome, utilities=value(genome, 1))])
    optimizer.tell([Observation(number=0, genome=base[0], utilities=value(base[0], 1))])
    assert len(optimizer.ask(3)) == 3


@pytest.mark.parametrize("name", ["cma steady", "nsga2 steady"])
def test_few_discrete_points_are_soon_all_known_and_it_still_ends(name: str) -> None:
    genes = (KINDS[2],) * 4
    fitness = Fitness(objectives={"0": Objective(task="t")})
    optimizer = Build(SPECS[name], genes, 1, ((0.0,) * 4, (1.0,) * 4), fitness.scalar, 3)()
    loop = Loop(optimizer, 1)
    assert len(set(loop.run(60, width=6))) == 16
