"""Recipes, runs and stages in a run file that cannot be: one line, exit 2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_MODELS, Typed, edited, refused
from journals import cut

Cli = Callable[..., Typed]
Write = Callable[..., Path]


def with_mix(path: Path, source: object) -> Path:
    return edited(
        path, lambda p: p["models"]["experts"].update(mix=source if isinstance(source, dict) else str(source))
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere@knee", ["models.experts.mix", "no run /nowhere", "nor a folder /nowhere@knee"]),
        ("/nowhere/recipe.yaml", ["models.experts.mix: /nowhere/recipe.yaml cannot be read"]),
        ("ONE@knee", ["models.experts.mix", "'knee' is none of best, math_ja, number:N"]),
        ("ONE@number:4000", ["models.experts.mix", "no candidate of that number"]),
        ({"parents": {}}, ["models.experts.mix", "missing"]),
        (3, ["models.experts.mix", "does not exist"]),
    ],
)
def test_an_expert_that_is_no_recipe(
    source: object, words: list[str], cli: Cli, run_file: Write, finished: dict[str, Path]
) -> None:
    source = source.replace("ONE", str(finished["one"])) if isinstance(source, str) else source
    refused(cli("plan", with_mix(run_file(), source)), *words)


def test_a_run_without_results_is_no_expert(cli: Cli, run_file: Write, copy_of_run: Callable[[str], Path]) -> None:
    run = copy_of_run("one")
    cut(run, 1)
    refused(cli("plan", with_mix(run_file(), run)), "models.experts.mix", "no candidate has been scored yet")


def test_a_mergekit_configuration_is_no_expert(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    (tmp_path / "mix.yml").write_text("merge_method: linear\nmodels: []\n")
    refused(cli("plan", with_mix(run_file(), "mix.yml")), "models.experts.mix", "mergekit", "evomerge merge")


def test_the_base_is_no_recipe(cli: Cli, run_file: Write, finished: dict[str, Path]) -> None:
    for source in (finished["one"], f"{finished['one']}@best", "recipe.yaml"):
        path = edited(run_file(), lambda p, source=source: p["models"].update(base=str(source)))
        refused(cli("plan", path), "models.base", "is a recipe or a run", "export it")


def staged(*stages: dict[str, Any], **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(plain: dict[str, Any]) -> None:
        plain.pop("space")
        plain.update(stages=list(stages), **changes)

    return change


ONE: dict[str, Any] = {"name": "one", "space": "model-wide", "share": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (staged(), ["stages is []", "at least 1"]),
        (staged({"space": "model-wide"}), ["stages.0 has neither a budget nor a share"]),
        (staged({**ONE, "budget": {"evaluations": 4}}), ["stages.0 has both a budget and a share"]),
        (staged({**ONE, "budget": {}, "share": None}), ["stages.0.budget", "sets no limit"]),
        (staged({**ONE, "budget": {"evaluations": 4, "target": {"it": 1}}, "share": None}), ["budget.target: 'it'"]),
        (staged(ONE, {**ONE, "name": "two", "share": 0.6}), ["shares sum to 1.1", "1 or less"]),
        (staged(ONE, ONE), ["stages.1.name is 'one'", "choose another"]),
        (staged({**ONE, "parents": "kept"}), ["stages.0.parents is kept", "leave it out"]),
        (staged({**ONE, "shares": 0.5}), ["stages.0.shares is not a key here; did you mean share?"]),
        (staged({**ONE, "space": "model-wid"}), ["stages.0.space: 'model-wid'", "did you mean model-wide?"]),
        (staged({**ONE, "space": {"weight": "high"}}), ["stages.0.space.weight is \"high\"", "range [low, high]"]),
        (staged({**ONE, "name": "a/b"}), ["stages.0.name is \"a/b\""]),
        (staged({**ONE, "keep": 0}), ["stages.0.keep is 0"]),
        (staged(ONE, space="per-layer"), ["space is not a key here"]),
        (staged(ONE, start=[]), ["start is not a key here"]),
        (staged(ONE, {"space": {"outer": "two 1"}, "share": 0.5}), ["stages.1: space.outer: 'two 1'", "one 1"]),
        (staged(ONE, {"space": {"weight": 1.0}, "share": 0.5}), ["stages.1: space: nothing is searched"]),
        (lambda p: p.pop("space") and p.update(stages="per-layer"), ["per-layer.yaml holds no stages"]),
        (lambda p: p.pop("space") and p.update(stages="two-stag"), ["stages: 'two-stag'", "did you mean two-stage?"]),
        (lambda p: staged(ONE)(p) or p["models"]["experts"].update({"one 1": str(DEMO_MODELS / "lists")}),
            ["models.experts: 'one 1' is what stage one keeps"]),
    ],
)  # fmt: skip
def test_stages_that_are_wrong(change: Callable[[Any], object], words: list[str], cli: Cli, run_file: Write) -> None:
    refused(cli("plan", edited(run_file(), change)), *words)


def test_a_budget_that_no_stage_shares_is_refused(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    path = edited(run_file(), staged({"space": "model-wide", "budget": {"evaluations": 4}}))
    refused(cli("search", path, "--out", tmp_path / "RUN", "--budget", 9), "--budget", "budget of its own", "shares")
    assert not (tmp_path / "RUN").exists()
