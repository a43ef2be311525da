"""Scores of items: those of transformers' own logits, and of what a task's own grading takes for right."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEMO_MODELS
from lm_tasks import write_tasks
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import SpecError
from evomerge.estimate.loss import loss
from evomerge.fitness import Fitness, Items, Objective
from evomerge.score import GradeFailure, TaskScorer, open_banks
from evomerge.score.function import FunctionScorer, function_table
from evomerge.trial import Draw

WHOLE = Draw(pool="search")
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: train.jsonl, test: test.jsonl}}
training_split: train
test_split: test
doc_to_text: "{{{{prompt}}}}"
"""
OTHERS = {
    "either": "output_type: multiple_choice\ndoc_to_choice: options\ndoc_to_target: '[{{gold}}, 3]'\n",
    "graded": "output_type: multiple_choice\ndoc_to_choice: options\ndoc_to_target: gold\n"
    "process_results: !function graded.marks\n"
    "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
    "sought": 'output_type: generate_until\ndoc_to_target: "{{answer}}"\n'
    "generation_kwargs: {max_gen_toks: 14}\n"
    "filter_list: [{name: box, filter: [{function: regex, regex_pattern: 'boxed (.*)'}, {function: take_first}]}]\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
    "spoken": 'output_type: generate_until\ndoc_to_target: "{{answer}}"\n'
    'generation_kwargs: {max_gen_toks: 14, until: ["</s>"]}\n'
    "filter_list: [{name: none, filter: [{function: remove_whitespace}, {function: take_first}]}]\n",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), count=8)
    (folder / "graded.py").write_text("def marks(doc, results):\n    return {'acc': 1.0}\n")
    for name, rest in OTHERS.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name) + rest)
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "maths", dtype=torch.float32).eval()


def scorer(tasks: Path, model: Any, task: str, **objective: Any) -> TaskScorer:
    fitness = Fitness(
        include=(str(tasks),), objectives={"it": Objective(task=task, **objective)}, items=Items(search=5)
    )
    return TaskScorer(fitness, open_banks(fitness), model, DEMO_MODELS / "maths")


@torch.no_grad()
def of_transformers(model: Any, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
    """Log-probability of each token of a continuation."""
    tokens = torch.tensor([[*context, *continuation]])
    rows = model(tokens).logits[0, len(context) - 1 : -1].log_softmax(-1)
    return [float(row[token]) for row, token in zip(rows, continuation, strict=True)]


@pytest.mark.parametrize("task", ["choices", "letters", "fewshot", "mutual", "exact", "long", "spoken"])
def test_scores_are_log_probabilities_and_marks_are_what_they_were(task: str, tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, task)
    draw = Draw(pool="search", places={task: (3, 0, 4)})
    marks, scores = one.scored(draw)
    assert marks == one.marks(draw)
    pool, bank = one.table.tasks[task].search, one._banks[task]
    for row, key, mark in zip(scores[task], one.table.drawn(*_of(draw))[task], _first(marks[task]), strict=True):
        asked, gold = one.requests(task, key), pool.golds[pool.ids.index(key)]
        each = [of_transformers(model, request.context, request.continuation) for request in asked]
        expected = [math.fsum(tokens) for tokens in each] if gold else each[0]
        assert row == pytest.approx(expected, abs=1e-4)
        if gold:
            assert len(row) == len(bank.items[key].doc["options"])
            assert gold == (bank.items[key].doc["gold"],)
            assert mark == (max(range(len(row)), key=row.__getitem__) in gold)
            shares = torch.tensor(row, dtype=torch.float64).softmax(0)
            assert loss(row, gold) == pytest.approx(-math.log(float(shares[list(gold)].sum())))
            assert loss(row, (0, 1, 2, 3)) == pytest.approx(0.0, abs=1e-12)
        else:
            assert loss(row, gold) == pytest.approx(-sum(row))


def _of(draw: Draw) -> tuple[Any, Any]:
    return draw.pool, draw.places


def _first(rows: Mapping[str, Sequence[float]]) -> Sequence[float]:
    return next(iter(rows.values()))


def test_a_reference_is_what_the_task_takes_for_right_up_to_its_first_stop_string(tasks: Path, model: Any) -> None:
    words = AutoTokenizer.from_pretrained(DEMO_MODELS / "maths")
    for task, before in (("long", ""), ("spoken", " ")):  # The first takes no space before an answer for right.
        one = scorer(tasks, model, task)
        for key in one.table.tasks[task].search.ids:
            (request,) = one.requests(task, key)
            doc = one._banks[task].items[key].doc
            text = words.decode([*request.context, *request.continuation])
            assert text.endswith(f"{doc['prompt']}{before}{doc['answer']}</s>")
            assert words.decode(request.continuation).strip() == f"{doc['answer']}</s>"


@pytest.mark.parametrize("task", ["rolling", "graded", "sought"])
def test_a_task_without_a_right_answer_of_its_own_gives_no_scores(task: str, tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, task)
    assert one.table.tasks[task].search.golds == ()
    marks, scores = one.scored(WHOLE)
    assert scores == {}
    assert marks == one.marks(WHOLE)


def test_several_options_may_be_right(tasks: Path, model: Any) -> None:
    one = scorer(tasks, model, "choices")
    assert all(len(gold) == 1 for gold in one.table.tasks["choices"].confirm.golds)
    either = scorer(tasks, model, "either").table.tasks["either"]
    assert {len(gold) for gold in either.search.golds} <= {1, 2}
    assert all(3 in gold for gold in either.search.golds)


class Judged:
    """Marks and scores of a few items, as they are asked for."""

    items = {"t": ["a", "b", "c", "d"], "u": ["x", "y"]}
    golds: dict[str, list[list[int]]] = {"t": [[0], [1, 2], [], [0]]}
    rows: dict[str, list[float]] = {"a": [0.1, -1.0], "b": [0.0, 0.0, 0.0], "c": [-0.5], "d": [1.0, 2.0]}

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        marks = {task: {"score": [1.0] * len(ids)} for task, ids in items.items()}
        return marks, {"t": [self.rows[key] for key in items["t"]]}


def test_a_callable_may_give_scores() -> None:
    fitness = Fitness(objectives={"it": Objective(tasks=("t", "u"))}, items=Items(search=1, confirm=1))
    one = FunctionScorer(Judged(), fitness, None, None)  # type: ignore[arg-type]
    marks, scores = one.scored(WHOLE)
    assert marks == one.marks(WHOLE)
    (key,) = one.table.tasks["t"].search.ids
    assert scores == {"t": (tuple(float(torch.tensor(value)) for value in Judged.rows[key]),)}
    assert one.table.tasks["t"].search.golds == (tuple(Judged.golds["t"][Judged.items["t"].index(key)]),)
    assert one.table.tasks["u"].search.golds == ()


@pytest.mark.parametrize(("row", "words"), [([], "no scores for item"), ([math.nan], "a score of item . of t is nan")])
def test_scores_of_a_callable_that_are_none_are_its_candidates_failure(row: list[float], words: str) -> None:
    class Odd(Judged):
        rows = dict.fromkeys("abcd", row)

    fitness = Fitness(objectives={"it": Objective(task="t")}, items=Items(search=2, confirm=1))
    with pytest.raises(GradeFailure, match=words):
        FunctionScorer(Odd(), fitness, None, None).scored(WHOLE)  # type: ignore[arg-type]


def test_golds_of_another_number_of_items_are_refused() -> None:
    class Odd(Judged):
        golds = {"t": [[0]]}

    fitness = Fitness(objectives={"it": Objective(task="t")}, items=Items(search=2, confirm=1))
    with pytest.raises(SpecError, match="golds of 1 items of 't', and 4 items; give one of each"):
        function_table(Odd(), fitness)
