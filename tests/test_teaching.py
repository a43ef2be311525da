"""A worker's lessons: what comes back for a work that asks for losses and slopes, and what goes wrong with one."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DEMO_MODELS, small_fitness

from evomerge.checkpoint import Shares
from evomerge.errors import SpecError
from evomerge.evaluate import Evaluator, EvaluatorFactory
from evomerge.fitness import Fitness
from evomerge.recipe import Coefficients
from evomerge.space import BlendSpec, bind
from evomerge.spec import Models
from evomerge.trial import Draw, Evaluation, Failure, Lesson, Work

MODELS = Models(
    base=str(DEMO_MODELS / "base"), experts={name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
)
FITNESS = Fitness.model_validate_json(__import__("json").dumps(small_fitness("math_ja", search=16, confirm=16)))


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return EvaluatorFactory(MODELS, FITNESS, 0, "cpu").build()


def work(evaluator: Evaluator, lesson: Lesson | None, weight: float = 0.4) -> Work:
    space = bind(BlendSpec(), evaluator.parents)
    recipe = space.decode((weight,) * len(space.genes))
    fine = Shares(recipe, evaluator.live.files.anatomy).coefficients("column")
    arrays = {name: np.full_like(array, weight) for name, array in fine.arrays.items()}
    coefficients = Coefficients("column", arrays)
    return Work(
        id=7,
        number=3,
        recipe=recipe.refined(coefficients),
        draw=Draw(pool="search", places={"math_ja": (1, 4, 2)}),
        purpose="gradient" if lesson else "search",
        coefficients=coefficients,
        lesson=lesson,
    )


def test_a_lesson_comes_back_with_losses_and_slopes(evaluator: Evaluator) -> None:
    asked = work(evaluator, Lesson(grain="column", weights={"math_ja": 1 / 3}))
    sent: Work = pickle.loads(pickle.dumps(asked))
    found: Evaluation = pickle.loads(pickle.dumps(evaluator(sent)))
    assert (found.work, found.number, found.outcome) == (7, 3, {})
    assert found.seconds.score > 0
    assert found.learnt is not None
    marks = evaluator(work(evaluator, None)).outcome
    assert not isinstance(marks, Failure)
    assert found.learnt.losses["math_ja"] == pytest.approx(marks["math_ja"]["perplexity"], rel=1e-4)
    assert sent.coefficients is not None
    assert found.learnt.slopes.keys() == sent.coefficients.arrays.keys()
    for name, slope in found.learnt.slopes.items():
        assert slope.shape == sent.coefficients.arrays[name].shape
        assert slope.dtype == np.float32
    assert any(slope.any() for slope in found.learnt.slopes.values())
    again = evaluator(sent)
    assert again.learnt is not None
    assert again.learnt.losses == found.learnt.losses
    assert all(np.array_equal(again.learnt.slopes[name], slope) for name, slope in found.learnt.slopes.items())


def test_a_lesson_without_grain_gives_losses_alone(evaluator: Evaluator) -> None:
    with_slopes = evaluator(work(evaluator, Lesson(grain="tensor", weights={"math_ja": 1.0}))).learnt
    found = evaluator(work(evaluator, Lesson(weights={"math_ja": 1.0}))).learnt
    assert found is not None and with_slopes is not None
    assert found.slopes == {}
    assert found.losses["math_ja"] == pytest.approx(with_slopes.losses["math_ja"], rel=1e-5)


def test_a_model_without_finite_losses_fails(evaluator: Evaluator) -> None:
    found = evaluator(work(evaluator, Lesson(grain="tensor", weights={"math_ja": 1.0}), weight=1e6))
    assert isinstance(found.outcome, Failure)
    assert "NaN or infinite" in found.outcome.reason
    assert found.learnt is None


def test_a_scorer_of_ones_own_gives_no_slopes(evaluator: Evaluator) -> None:
    scorer = evaluator.scorer
    own = SimpleNamespace(table=scorer.table, notes=set(), marks=scorer.marks, scored=scorer.scored)
    alone = Evaluator(evaluator.live, own, "alone")
    with pytest.raises(SpecError, match="no gradients go back through a scorer of your own; choose.*surrogate"):
        alone(work(evaluator, Lesson(grain="tensor", weights={"math_ja": 1.0})))
