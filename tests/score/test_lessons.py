"""Lessons: losses are what the scores say, and slopes what differences of the losses are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEMO_MODELS
from lm_tasks import write_tasks
from scipy.special import log_softmax, logsumexp, softmax

from evomerge.checkpoint import ParentFiles, Shares, open_parents
from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective
from evomerge.materialize import LiveModel
from evomerge.recipe import Coefficients, Recipe
from evomerge.score import TaskScorer, open_banks
from evomerge.score.lessons import Exercise
from evomerge.space import BlendSpec, bind
from evomerge.teaching import Teacher
from evomerge.trial import Draw, Learnt, Lesson, Scores, Work

CHOICES = ("choices", "letters", "fewshot", "mutual")
ANSWERS = ("exact", "written", "long")
PLACES = (3, 0, 7, 12, 5, 1)
DRAW = Draw(pool="search", places=dict.fromkeys((*CHOICES, *ANSWERS), PLACES))


class Bench:
    """A live model of the demo's, the scorer of all kinds of tasks, and a teacher."""

    def __init__(self, folder: Path) -> None:
        objectives = {name: Objective(task=name) for name in (*CHOICES, *ANSWERS, "rolling")}
        fitness = Fitness(
            include=(str(write_tasks(folder)),), objectives=objectives, items=Items(search=16, confirm=16)
        )
        experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
        self.files: ParentFiles = open_parents(str(DEMO_MODELS / "base"), experts, 0)
        self.live = LiveModel(self.files, torch.device("cpu"))
        self.scorer = TaskScorer(fitness, open_banks(fitness), self.live.model, self.files.template)
        self.lessons = self.scorer.lessons()
        self.teacher = Teacher(self.live, self.lessons)
        space = bind(BlendSpec(), self.files.parents)
        recipe = space.decode((0.4,) * len(space.genes))
        self.recipe: Recipe = recipe.model_copy(update={"dtype": "float32"})  # Rounding would spoil differences.

    def learnt(self, lesson: Lesson, draw: Draw = DRAW, coefficients: Coefficients | None = None) -> Learnt:
        recipe = self.recipe if coefficients is None else self.recipe.refined(coefficients)
        fine = None if coefficients is None or coefficients.grain == "tensor" else coefficients
        self.live.load(recipe, fine)
        work = Work(id=0, number=0, recipe=recipe, draw=draw, purpose="gradient", coefficients=fine, lesson=lesson)
        return self.teacher.learnt(work)

    def scores(self) -> Scores:
        self.live.load(self.recipe)
        return self.scorer.scored(DRAW)[1]

    def golds(self, task: str) -> list[tuple[int, ...]]:
        return [self.scorer.table.tasks[task].search.golds[place] for place in PLACES]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("tasks"))


def weights(*tasks: str) -> dict[str, float]:
    return {task: 0.1 * (place + 1) for place, task in enumerate(tasks or (*CHOICES, *ANSWERS))}


def only(*tasks: str) -> Draw:
    return DRAW.model_copy(update={"places": dict.fromkeys(tasks, PLACES)})


@pytest.mark.parametrize("grain", [None, "tensor"])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_losses_are_what_the_scores_say(grain: str | None, temperature: float, bench: Bench) -> None:
    scores = bench.scores()
    for loss in ("nll", "error"):
        lesson = Lesson.model_validate({"grain": grain, "weights": weights(), "loss": loss, "temperature": temperature})
        found = bench.learnt(lesson).losses
        assert found.keys() == DRAW.places.keys()  # type: ignore[union-attr]
        for task in CHOICES:
            for value, row, gold in zip(found[task], scores[task], bench.golds(task), strict=True):
                logs = log_softmax(np.array(row) / (temperature if loss == "error" else 1.0))
                right = logsumexp(logs[list(gold)])
                assert value == pytest.approx(-right if loss == "nll" else 1 - np.exp(right), rel=1e-4, abs=1e-5)
        for task in ANSWERS:
            for value, row in zip(found[task], scores[task], strict=True):
                wanted = -sum(row) if loss == "nll" else 1 - np.exp(sum(row) / temperature)
                assert value == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_targets_are_imitated(bench: Bench) -> None:
    scores = bench.scores()["choices"]
    rng = np.random.default_rng(0)
    targets = rng.dirichlet(np.ones(4), len(PLACES))
    plain = {"weights": {"choices": 1.0}, "targets": {"choices": [tuple(row) for row in targets.tolist()]}}
    cross = bench.learnt(
        Lesson.model_validate({**plain, "targets": {"choices": tuple(plain["targets"]["choices"])}}), only("choices")
    )  # type: ignore[index]
    for value, row, target in zip(cross.losses["choices"], scores, targets, strict=True):
        assert value == pytest.approx(-(target * log_softmax(row)).sum(), rel=1e-4)
    missed = bench.learnt(
        Lesson(weights={"choices": 1.0}, loss="error", targets={"choices": tuple(map(tuple, targets.tolist()))}),
        only("choices"),
    )
    for value, row, target in zip(missed.losses["choices"], scores, targets, strict=True):
        assert value == pytest.approx(1 - (target * softmax(row)).sum(), rel=1e-4)


@pytest.mark.parametrize("lesson", [{"loss": "nll"}, {"loss": "error", "temperature": 2.0}])
@pytest.mark.parametrize("grain", ["tensor", "column", "row"])
def test_slopes_are_differences_of_the_losses(grain: str, lesson: dict[str, object], bench: Bench) -> None:
    """Along directions in which a random half of the coefficients have a part, uphill."""
    tasks = {"choices": 1.0, "exact": 0.05, "written": 0.05}
    plain = {"weights": tasks, **lesson}
    start = Shares(bench.recipe, bench.files.anatomy).coefficients(None if grain == "tensor" else grain)  # type: ignore[arg-type]
    found = bench.learnt(Lesson.model_validate({**plain, "grain": grain}), only(*tasks), start)
    rng = np.random.default_rng(5)
    way = {name: np.sign(slope) * rng.choice([0.0, 1.0], slope.shape) for name, slope in found.slopes.items()}
    slope = sum(float((found.slopes[name] * each).sum()) for name, each in way.items())
    totals, step = [], 0.01 / slope
    for move in (step, -step):
        moved = Coefficients(start.grain, {n: (a + move * way[n]).astype(np.float32) for n, a in start.arrays.items()})
        losses = bench.learnt(Lesson.model_validate(plain), only(*tasks), moved).losses
        totals.append(sum(weight * sum(losses[task]) for task, weight in tasks.items()))
    assert slope == pytest.approx((totals[0] - totals[1]) / (2 * step), rel=0.01)


def test_a_whole_is_the_sum_of_its_pieces(bench: Bench) -> None:
    lesson = Lesson(grain="column", weights=weights())
    whole = bench.learnt(lesson)
    parts = [bench.learnt(lesson, DRAW.piece(start, start + 2)) for start in (0, 2, 4)]
    for task, losses in whole.losses.items():
        assert losses == pytest.approx([loss for part in parts for loss in part.losses[task]], rel=1e-4, abs=1e-5)
    for name, slope in whole.slopes.items():
        total = sum(part.slopes[name] for part in parts)
        np.testing.assert_allclose(slope, total, rtol=1e-3, atol=1e-4 * np.abs(slope).max())


def test_the_same_again_is_the_same_and_batches_make_no_difference(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = Lesson(grain="row", weights=weights())
    first, second = bench.learnt(lesson), bench.learnt(lesson)
    assert first.losses == second.losses
    assert all(np.array_equal(first.slopes[name], second.slopes[name]) for name in first.slopes)
    monkeypatch.setattr(bench.lessons._budget, "tokens", 40)
    small = bench.learnt(lesson)
    for name, slope in first.slopes.items():
        np.testing.assert_allclose(small.slopes[name], slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())


def test_memory_that_runs_out_makes_batches_smaller(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = Lesson(grain="tensor", weights=weights())
    wanted, plain, tried = bench.learnt(lesson), bench.lessons._losses, []
    monkeypatch.setattr(bench.lessons._budget, "tokens", 1000)

    def short(batch: Sequence[Exercise], asked: Lesson) -> torch.Tensor:
        tried.append(bench.lessons._budget.tokens)
        if tried == [1000, 1000]:
            raise torch.OutOfMemoryError
        return plain(batch, asked)

    monkeypatch.setattr(bench.lessons, "_losses", short)
    found = bench.learnt(lesson)
    assert set(tried) == {1000, 500}
    for name, slope in wanted.slopes.items():
        np.testing.assert_allclose(found.slopes[name], slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max() + 1e-7)


def test_marks_are_the_same_after_a_lesson(bench: Bench) -> None:
    bench.live.load(bench.recipe)
    before = bench.scorer.marks(DRAW)
    bench.learnt(Lesson(grain="column", weights=weights()))
    assert bench.scorer.marks(DRAW) == before


def test_a_task_without_weight_costs_no_way_back(bench: Bench) -> None:
    found = bench.learnt(Lesson(grain="tensor", weights={"choices": 0.0}), only("choices"))
    assert all(loss > 0 for loss in found.losses["choices"])
    assert not any(slope.any() for slope in found.slopes.values())


def tied(bench: Bench) -> dict[str, tuple[int, ...]]:
    """Three numbers, which tensors and sources share in no order."""
    arrays = Shares(bench.recipe, bench.files.anatomy).coefficients(None).arrays
    return {name: (place % 3, (place + 1) % 3) for place, name in enumerate(arrays)}


def test_with_ties_items_give_scores_and_their_differences(bench: Bench) -> None:
    ties, scores, draw = tied(bench), bench.scores(), only("choices", "exact", "written")
    found = bench.learnt(Lesson(weights={}, ties=ties), draw)
    assert found.losses == found.slopes == {}
    for task, rows in found.scores.items():
        wanted = scores[task] if task in CHOICES else [(sum(row),) for row in scores[task]]
        for row, its in zip(rows, wanted, strict=True):
            assert row == pytest.approx(its, rel=1e-4, abs=1e-4)
        assert found.jacobians[task].shape == (sum(map(len, rows)), 3)
        assert found.jacobians[task].dtype == np.float32
    even = Shares(bench.recipe, bench.files.anatomy).coefficients(None).arrays
    for number in range(3):
        sides = []
        for move in (0.001, -0.001):
            way = {name: np.equal(numbers, number).astype(np.float32)[:, None] for name, numbers in ties.items()}
            moved = Coefficients("tensor", {name: array + move * way[name] for name, array in even.items()})
            sides.append(bench.learnt(Lesson(weights={}, ties=ties), draw, moved).scores)
        for task, slopes in found.jacobians.items():
            up, down = (np.concatenate(side[task]) for side in sides)
            wanted = (up - down) / 0.002
            np.testing.assert_allclose(slopes[:, number], wanted, rtol=0.02, atol=0.02 * np.abs(wanted).max())


def test_what_does_not_keep_rows_apart_is_gone_back_to_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.materialize.jacobians import Followed

    lesson, draw = Lesson(weights={}, ties=tied(bench)), only("choices", "exact")
    wanted = bench.learnt(lesson, draw)
    plain = Followed._by_row
    monkeypatch.setattr(Followed, "_by_row", lambda *given: plain(*given).roll(1, 1))
    monkeypatch.setattr(bench, "teacher", Teacher(bench.live, bench.lessons))
    monkeypatch.setattr(bench.live, "notes", set())
    found = bench.learnt(lesson, draw)
    assert [note for note in bench.live.notes if "one by one" in note and "does not keep rows apart" in note]
    for task, rows in wanted.scores.items():
        assert np.concatenate(found.scores[task]) == pytest.approx(np.concatenate(rows), rel=1e-4, abs=1e-4)
        np.testing.assert_allclose(found.jacobians[task], wanted.jacobians[task], rtol=1e-2, atol=1e-2)


def test_a_task_without_scores_is_refused(bench: Bench) -> None:
    with pytest.raises(SpecError, match="'rolling' gives no scores to learn from; choose another optimizer"):
        bench.learnt(Lesson(weights={"rolling": 1.0}), only("rolling"))
