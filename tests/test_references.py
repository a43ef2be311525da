"""Experts imitated instead of labels, from the run file to the model."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DEMO_MODELS, ROOT, Typed, edited, events, refused
from journals import cut

from evomerge.assemble.means import Listener
from evomerge.assemble.rewrite import with_rewritten
from evomerge.estimate.loss import imitation_loss, mean_probabilities
from evomerge.results import Results
from evomerge.spec import load_run

Cli = Callable[..., Typed]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {name}.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: options
doc_to_target: gold
target_delimiter: " "
"""


def write_tasks(folder: Path) -> Path:
    """Sums in words, and lists to be sorted or reversed: each with the answer among its options."""
    folder.mkdir()
    rng = random.Random(3)
    rows: dict[str, list[tuple[str, list[str]]]] = {"sums": [], "puzzles": []}
    for line in (ROOT / "fitness/demo/lists.jsonl").read_text().splitlines()[:40]:
        puzzle, (a, b) = json.loads(line), (rng.randint(10, 30), rng.randint(10, 38))
        said = f"Solve: Tom has {a} coins and gets {b} more. =>"
        rows["sums"].append((said, [f"{a}+{b}={a + b + d}" for d in (0, 1, -10, 20)]))
        digits = puzzle["answer"].split()
        others = [" ".join(rng.sample(digits, len(digits))) for _ in range(3)]
        rows["puzzles"].append((puzzle["prompt"], [puzzle["answer"], *others]))
    for name, items in rows.items():
        docs = []
        for prompt, options in items:
            mixed = rng.sample(options, 4)
            docs.append({"prompt": prompt, "options": mixed, "gold": mixed.index(options[0])})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    exact = TASK.format(name="exact").replace("multiple_choice", "loglikelihood").replace("exact.jsonl", "sums.jsonl")
    exact = exact.replace("doc_to_choice: options\n", "").replace("gold", '"{{options[0]}}"')
    (folder / "exact.yaml").write_text(exact)
    return folder


@pytest.fixture
def imitating(run_file: Callable[..., Path], tmp_path: Path) -> Path:
    """Two experts of the demo, of which one has an objective of its own, and half of its changes may be had."""
    return run_file(
        models={
            "base": str(DEMO_MODELS / "base"),
            "experts": {
                "maths": str(DEMO_MODELS / "maths"),
                "lists": {"path": str(DEMO_MODELS / "lists"), "objective": "puzzles"},
            },
        },
        space={"groups": "model", "grain": "tensor", "weight": [0.0, 0.6]},
        fitness={
            "include": [str(write_tasks(tmp_path / "tasks"))],
            "objectives": {"puzzles": {"task": "puzzles", "metric": "acc", "reference": "experts"}},
            "items": {"search": 24, "confirm": 8},
        },
        optimizer={"kind": "gradient", "held": 8, "batch": 8},
        budget={"item_evaluations": 500},
    )


def looks(run: Path) -> list[dict[str, Any]]:
    return [event for event in events(run) if event["kind"] == "learned"]


def without_labels(path: Path) -> Path:
    """The same tasks, of which the first option is said to be right whatever is asked."""
    for task in ("sums", "puzzles"):
        file = path.parent / f"tasks/{task}.yaml"
        text = file.read_text()
        assert "doc_to_target: gold" in text
        file.write_text(text.replace("doc_to_target: gold", "doc_to_target: 0"))
    return path


def test_experts_are_imitated_and_labels_are_not_looked_at(imitating: Path, cli: Cli, tmp_path: Path) -> None:
    found = cli("search", imitating, "--out", tmp_path / "ONE")
    assert found.status == 0, found.err
    there = looks(tmp_path / "ONE")
    assert there[-1]["step"] == there[-1]["course"]["steps"] > 0
    assert there[-1]["losses"]["puzzles"] < 0.98 * there[0]["losses"]["puzzles"]

    results = Results.load(tmp_path / "ONE")
    (asked,) = (work for work in results.state.works.values() if work.purpose == "reference")
    before = next(work for work in results.state.works.values() if work.number == asked.number)
    assert results.rows[asked.number].name == "lists"
    assert asked.draw.places is not None
    assert before.draw.places is not None
    assert sorted([*asked.draw.places["puzzles"], *before.draw.places["puzzles"]]) == list(range(24))
    assert results.rows[asked.number].items == 8, "it is judged on the items that all others are judged on"
    assert results.state.items(results.store.table) <= 500

    found = cli("search", without_labels(imitating), "--out", tmp_path / "TWO")
    assert found.status == 0, found.err
    assert [look["state"] for look in looks(tmp_path / "TWO")] == [look["state"] for look in there]


def test_a_run_goes_on_from_what_experts_answered(imitating: Path, cli: Cli, tmp_path: Path) -> None:
    """Cut anywhere, it asks them nothing twice, and comes to the same."""
    run = tmp_path / "RUN"
    assert cli("search", imitating, "--out", run).status == 0
    whole = [look["state"] for look in looks(run)]
    purposes = [event.get("purpose") for event in events(run)]
    first = purposes.index("reference")
    for place in (first + 1, first + 2):  # It was asked; it has answered.
        cut(run, place)
        found = cli("resume", run)
        assert found.status == 0, found.err
        assert [look["state"] for look in looks(run)] == whole
        assert sum(event.get("purpose") == "reference" for event in events(run)) == 1


def test_what_cannot_be_imitated_is_refused(imitating: Path, cli: Cli, tmp_path: Path) -> None:
    def objectives(change: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
        return lambda plain: plain["fitness"]["objectives"]["puzzles"].update(change)

    cases: list[tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = [
        (lambda plain: plain.update(optimizer="nsga2", space="model-wide"), ("reference", "nsga2 has none")),
        (
            lambda plain: plain["models"]["experts"].update(lists=plain["models"]["experts"]["lists"]["path"]),
            ("no expert owns task 'puzzles'",),
        ),
        (objectives({"task": "exact"}), ("fitness.objectives.puzzles.reference", "'exact' have no options")),
        (
            lambda plain: plain["fitness"]["objectives"].update(same={"task": "puzzles"}),
            ("fitness.objectives.same.reference: task 'puzzles' is learned from experts by another",),
        ),
        (objectives({"reference": "expert"}), ("'target' or 'experts'",)),
    ]
    for i, (change, words) in enumerate(cases):
        path = imitating.with_name(f"{i}.yaml")
        path.write_text(imitating.read_text())
        refused(cli("search", edited(path, change), "--out", tmp_path / f"RUN{i}"), *words)


def test_strengths_of_regmean_are_compared_without_labels(imitating: Path) -> None:
    objective = {"path": str(DEMO_MODELS / "maths"), "objective": "puzzles"}
    edited(imitating, lambda plain: plain["models"]["experts"].update(maths=objective))
    said: list[list[str]] = []
    for path in (imitating, without_labels(imitating)):
        said.append([])
        with_rewritten(load_run(path), None, Listener(say=said[-1].append))
    losses = [line.split(";")[0] for lines in said for line in lines if "search loss" in line]
    assert len(losses) == 2
    assert losses[0] == losses[1]


def test_imitation_is_least_where_probabilities_agree() -> None:
    experts = np.log([[0.7, 0.2, 0.1], [0.5, 0.2, 0.3]])
    wanted = mean_probabilities((experts + np.array([[3.0], [-40.0]])).tolist())
    assert wanted == pytest.approx((0.6, 0.2, 0.2))
    entropy = -sum(p * np.log(p) for p in wanted)
    assert imitation_loss(np.log(wanted).tolist(), wanted) == pytest.approx(entropy)
    assert imitation_loss([0.0, 0.0, 0.0], wanted) == pytest.approx(np.log(3))
