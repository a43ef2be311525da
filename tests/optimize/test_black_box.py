"""The search by itself: points in their own ranges, scores by item, whatever else is refused with a way out."""

import subprocess
import sys

import numpy as np
import pytest
from answering import Exam

import evomerge
from evomerge.errors import SpecError
from evomerge.space import Gene

RANGES = {f"g{i}": (-1.0, 3.0) for i in range(5)}
ANSWERS = [np.int64(1), [0, 2], None]
SCORES = [[-1.0, -2.0], [-1.0, -2.0, -3.0], [-0.5]]


def units(point: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((value + 1) / 4 for value in point)


def searched(exam: Exam, rounds: int, seed: int = 0) -> evomerge.Surrogate:
    search = evomerge.Surrogate(RANGES, exam.golds[:80], start=[(0.5,) * 5, (1.5,) * 5], seed=seed)
    rng = np.random.default_rng(3)
    for _ in range(rounds):
        for point in search.ask(5):
            rows = sorted(rng.choice(80, 50, replace=False).tolist())
            search.tell(point, exam.scores(units(point), rows), rows)
    return search


def test_it_finds_what_is_right_and_is_restored_by_telling_it_the_same() -> None:
    exam = Exam(5, 160, 3)
    one, other = searched(exam, 12), searched(exam, 12)
    assert exam.accuracy(units(one.recommend() or ()), range(80, 160)) > 0.75
    assert one.ask(3) == other.ask(3)
    assert searched(exam, 3).ask(1) != searched(exam, 3, seed=1).ask(1)


def test_starts_come_first_and_points_lie_in_their_ranges() -> None:
    genes = {"real": (-2.0, 5.0), "on": Gene(name="on", low=0, high=1, levels=1, kind="binary")}
    search = evomerge.Surrogate(genes, [0, 1], start=[(-1.0, 1.0)])
    points = search.ask(6)
    assert points[0] == (-1.0, 1.0) and len(set(points)) == 6
    assert all(-2 <= real <= 5 and on in (0.0, 1.0) for real, on in points)


def test_several_objectives_items_of_all_kinds_and_failures() -> None:
    search = evomerge.Surrogate({"a": (0.0, 1.0)}, {"one": ANSWERS, "two": [0]})
    for number, point in enumerate(search.ask(8)):
        scores = {"one": SCORES, "two": [[point[0], -1.0]]}
        search.tell(point, None if number == 2 else scores)
    search.tell((0.35,), {"one": SCORES[2:], "two": [[0.3, -1.0]]}, {"one": [2], "two": [0]})
    assert len(search.ask(4)) == 4 and search.recommend() is None


def test_what_does_not_fit_is_refused() -> None:
    for genes, answers in (({}, [0]), ({"a": (0.0, 1.0)}, []), ({"a": (0.0, 1.0)}, {})):
        with pytest.raises(SpecError, match="give at least one of each"):
            evomerge.Surrogate(genes, answers)
    with pytest.raises(SpecError, match="a is 2; the space allows 0 to 1"):
        evomerge.Surrogate({"a": (0.0, 1.0)}, [0], start=[(2.0,)])
    search = evomerge.Surrogate({"a": (0.0, 1.0)}, ANSWERS)
    search.tell((0.5,), SCORES)
    with pytest.raises(SpecError, match="give 1, one for each gene"):
        search.tell((0.5, 0.5), SCORES)
    for scores, rows in (
        (SCORES[:2], [0]),
        ([[0.0]], [7]),
        ({"other": SCORES}, None),
        ([[-1.0, -2.0, -3.0]], [0]),
        ([[-1.0]], [0]),
    ):
        with pytest.raises(SpecError, match="the scores do not fit the answers"):
            search.tell((0.6,), scores, rows)


def test_the_package_is_as_light_as_before() -> None:
    code = "import sys, evomerge; evomerge.Surrogate; print('torch' in sys.modules, 'scipy.optimize' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'Surogate'"):
        _ = evomerge.Surogate
