"""Parents that cannot be scored, and searches in which no merge can be, end in one line, and not with success."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Typed, refused

from evomerge.assemble import resume, search
from evomerge.errors import RunError
from evomerge.results import Results
from evomerge.spec import load_run

Cli = Callable[..., Typed]
Write = Callable[..., Path]
CODE = {
    "raises": "def f(doc, results): raise ZeroDivisionError('no\\nreason')",
    "ends": "import sys\ndef f(doc, results): sys.exit(0)",
    "nan": "def f(doc, results): return {'acc': float('nan') if doc['prompt'] else 1.0}",
    "once": "def f(doc, results): return {'acc': {'yes': 1.0}[doc['answer'][:0] or seen(doc)]}\n"
    "docs = []\ndef seen(doc):\n    docs.append(doc) if doc not in docs else None\n"
    "    return 'yes' if docs.index(doc) < 6 else 'no'",
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(ROOT / "fitness/demo", tmp_path / "tasks"))
    path = folder / "lists.yaml"
    path.write_text(path.read_text() + "process_results: !function graded.f\n")
    return folder


def fitness(tasks: Path) -> dict[str, Any]:
    objectives = {"x": {"task": "lists", "metric": "acc"}}
    items = {"search": 8, "confirm": 8}
    return {"include": [str(tasks)], "objectives": objectives, "items": items, "estimator": {"items": 4}}


@pytest.mark.parametrize(
    ("code", "command", "words"),
    [
        ("raises", "plan", ["base cannot be scored: task 'lists': the answer to", "ZeroDivisionError: no reason"]),
        ("raises", "search", ["R: base cannot be scored: task 'lists': the answer to document", "mend the task"]),
        ("ends", "plan", ["task 'lists' cannot be used (its code ends the process: sys.exit(0))"]),
        ("nan", "plan", ["base cannot be scored: acc of item", "is nan"]),
        ("once", "search", ["R: base cannot be scored: task 'lists': the answer to document", "KeyError: 'no'"]),
    ],
)  # fmt: skip
def test_a_task_that_cannot_grade_parents_ends_plan_and_search(
    code: str, command: str, words: list[str], tasks: Path, cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    (tasks / "graded.py").write_text(CODE[code])
    out = ("--out", tmp_path / "R") if command == "search" else ()
    refused(cli(command, run_file(fitness=fitness(tasks)), *out), *words)
    if out:
        assert Results.load(tmp_path / "R").status == "failed"
        refused(cli("resume", tmp_path / "R"), "R: base cannot be scored: task 'lists'")


class OnlyParents:
    """Marks models that it has seen the norms of, and fails at all others."""

    items = {"t": [str(i) for i in range(16)]}

    def __init__(self, parents: int) -> None:
        self.parents = parents
        self.known: list[float] = []

    def __call__(self, model: Any, tokenizer: Any, items: Mapping[str, Sequence[str]]) -> Any:
        norm = float(sum(weight.square().sum() for weight in model.parameters()))
        if len(self.known) < self.parents and norm not in self.known:
            self.known.append(norm)
        if norm not in self.known:
            raise ValueError("this is no parent")
        return {"t": {"score": [float(len(item)) for item in items["t"]]}}


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        (3, "R: all 10 merges have failed, the first of them by this: ValueError: this is no parent"),
        (0, "R: base cannot be scored: ValueError: this is no parent"),
    ],
)
def test_nothing_but_failures_is_no_result(parents: int, words: str, run_file: Write, tmp_path: Path) -> None:
    plain = {"objectives": {"x": {"task": "t"}}, "items": {"search": 8, "confirm": 8}, "estimator": {"items": 4}}
    spec = load_run(run_file(fitness=plain))
    scorer = OnlyParents(parents)
    with pytest.raises(RunError, match=words):
        search(spec, tmp_path / "R", scorer=scorer)
    assert Results.load(tmp_path / "R").status == "failed"
    with pytest.raises(RunError, match=words):
        resume(tmp_path / "R", scorer=scorer)
