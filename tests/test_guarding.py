"""A text that must not get worse while something else is learned, from the run file to the model."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEMO_MODELS, ROOT, Typed, events

Cli = Callable[..., Typed]


@pytest.fixture
def guarded(run_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Puzzles are learned; guarded is what becomes ever more surprising, letters that mean nothing."""
    rng = random.Random(1)
    (tmp_path / "text.txt").write_text("".join(rng.choice("abcdefgh ") for _ in range(30_000)))

    def write(**guard: object) -> Path:
        experts = {name: str(DEMO_MODELS / name) for name in ("maths", "lists")}
        return run_file(
            models={"base": str(DEMO_MODELS / "base"), "experts": experts},
            space={"groups": "model", "grain": "tensor"},
            fitness={
                "include": [str(ROOT / "fitness/demo")],
                "objectives": {"lists": {"task": "lists", "metric": "acc"}},
                "items": {"search": 40, "confirm": 8, "group": "group"},
            },
            optimizer={"kind": "gradient", "held": 8, "rate": 0.05},
            budget={"item_evaluations": 1200},
            guard={"of": "task arithmetic 1.0", **({} if "task" in guard else {"text": "text.txt"}), **guard},
        )

    return write


def test_text_is_kept_while_something_else_is_learned(guarded: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    looks = {}
    for name, share in (("LOOSE", 9.0), ("TIGHT", 0.3)):
        found = cli("search", guarded(share=share), "--out", tmp_path / name)
        assert found.status == 0, found.err
        looks[name] = [event for event in events(tmp_path / name) if event["kind"] == "learned"]
        assert looks[name][-1]["items"] <= 1200
        shown = json.loads(cli("show", tmp_path / name, "--json").out)
        assert shown["text"] == "text.txt"
        assert shown["item_evaluations"] <= 1200
    loose, tight = looks["LOOSE"], looks["TIGHT"]
    assert {look["pull"] for look in loose} == {0.0}
    assert max(look["pull"] for look in tight) > 0
    assert loose[-1]["excess"] > loose[0]["excess"], "without a guard it gets worse"
    chosen = [look for look in tight if look["step"] == tight[-1]["best"]]
    assert min(look["excess"] for look in chosen) <= math.log(1.3)
    assert tight[-1]["losses"]["lists"] < tight[0]["losses"]["lists"], "and something is learned"


def test_right_answers_of_a_task_are_kept(guarded: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    found = cli("search", guarded(task="math_ja", share=0.02), "--out", run)
    assert found.status == 0, found.err
    looks = [event for event in events(run) if event["kind"] == "learned"]
    assert looks[-1]["pull"] > looks[0]["pull"]
    assert looks[-1]["excess"] < looks[0]["excess"] - 0.1, "it begins above the limit, and is pulled down"
    assert looks[-1]["losses"]["lists"] <= looks[0]["losses"]["lists"], "and something is learned"
    shown = json.loads(cli("show", run, "--json").out)
    assert shown["text"] == "the right answers of math_ja"
    drifts = {row["name"]: row["drift"] for row in shown["baselines"]}
    assert drifts["maths"]["perplexity"][0] < drifts["base"]["perplexity"][0]


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"task": "nothing"}, "guard.task: "),
        ({"task": "lists", "text": "text.txt"}, "text and task are both given"),
        ({"text": None}, "text and task are both missing"),
        ({"task": "lists"}, "guard.task: 'lists' is measured by an objective already"),
    ],
)
def test_a_guard_that_cannot_be_is_refused(
    guarded: Callable[..., Path], cli: Cli, tmp_path: Path, guard: dict[str, object], said: str
) -> None:
    found = cli("search", guarded(**guard), "--out", tmp_path / "RUN")
    assert found.status == 2
    assert said in found.err
