"""Searches on few items: the three numbers of their finalists wherever they are shown, other estimators, the plan."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Typed, small_fitness
from journals import make_older

import evomerge
from evomerge.arguments import Kind
from evomerge.export.card import model_card
from evomerge.fitness import EstimatorKind
from evomerge.results import number, with_error
from evomerge.terminal import results_tables

Cli = Callable[..., Typed]
Write = Callable[..., Path]
DRAWN = {"kind": "aipw", "items": 8}


def few_items(*tasks: str, **estimator: object) -> dict[str, Any]:
    return {**small_fitness(*tasks, search=24), "estimator": {**DRAWN, **estimator}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs to read: of accuracies, and of perplexities."""
    from conftest import DEMO_MODELS

    folder = tmp_path_factory.mktemp("few")
    experts = {name: str(DEMO_MODELS / name) for name in ("maths", "japanese")}
    losses = few_items("math_ja")
    losses["objectives"]["math_ja"]["metric"] = "perplexity"
    fitnesses = {"one": few_items("math_ja"), "two": few_items("math_ja", "lists"), "losses": losses}
    for name, fitness in fitnesses.items():
        path = folder / f"{name}.yaml"
        plain = {"models": {"base": str(DEMO_MODELS / "base"), "experts": experts}, "space": "model-wide", "seed": 3}
        path.write_text(json.dumps({**plain, "fitness": fitness, "budget": {"evaluations": 20}}))
        evomerge.search(path, folder / name)
    return {name: folder / name for name in fitnesses}


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_front_shows_three_numbers_and_three_differences(name: str, runs: dict[str, Path], cli: Cli) -> None:
    results = evomerge.load(runs[name])
    best = results.best
    assert best is not None
    text = cli("show", runs[name]).out
    for label in results.objectives:
        confirmed = number(best, "confirmed", label)
        assert re.fullmatch(r"\d\.\d{3} \[-?\d\.\d{3}, \d\.\d{3}\]", confirmed)
        for cell in (number(best, "search", label), number(best, "shrunken", label), confirmed):
            assert cell in text
        for key, differences in results.paired(best).items():
            assert differences[label][0] in {row.name for row in results.baselines}, key
            assert with_error(differences[label][1], "+") in text
    assert "which flatters the best of many" in text


def test_a_narrow_terminal_shows_fewer_columns(runs: dict[str, Path]) -> None:
    results = evomerge.load(runs["one"])
    heads = {
        width: [str(column.header).replace("\n", " ") for column in results_tables(results, width)[1].columns]
        for width in (140, 95, 75, 60, 40)
    }
    numbers = ["candidate", "search", "shrunken", "confirmed"]
    assert heads[140] == [*numbers, "minus best parent", "minus best fixed", "minus uniform"]
    assert heads[95] == [*numbers, "minus best fixed"]
    assert heads[75] == numbers
    assert heads[60] == ["candidate", "shrunken", "confirmed"]
    assert heads[40] == ["candidate", "confirmed"]


def test_json_and_csv_agree_with_each_other(runs: dict[str, Path], cli: Cli) -> None:
    found = json.loads(cli("show", runs["two"], "--json").out)
    assert found["estimator"] == "aipw"
    lines = {line["number"]: line for line in csv.DictReader(cli("show", runs["two"], "--csv").out.splitlines())}
    for entry in found["front"]:
        line = lines[str(entry["number"])]
        assert int(line["search items"]) == entry["items"] >= 16
        for label in found["objectives"]:
            for which in ("search", "shrunken", "confirmed"):
                pair = [float(line[f"{label} {which}"]), float(line[f"{label} {which} error"])]
                assert pair == entry[which][label]
            assert [float(line[f"{label} confirmed {end}"]) for end in ("low", "high")] == entry["interval"][label]
            for key, name in (("best_parent", "best parent"), ("best_fixed", "best fixed"), ("uniform", "uniform")):
                pair = [float(line[f"{label} minus {name}"]), float(line[f"{label} minus {name} error"])]
                assert pair == entry["paired"][key][label]
    assert any(line["math_ja confirmed"] == "" for line in lines.values()), "not everybody is a finalist"


def test_report_and_card_show_the_same(runs: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    results = evomerge.load(runs["two"])
    best = results.best
    assert best is not None
    card = model_card(results, best, results.recipe(best.number), tmp_path / "M")
    assert cli("report", runs["two"], "--out", tmp_path / "r.html").status == 0
    page = (tmp_path / "r.html").read_text()
    for label in results.objectives:
        for which in ("search", "shrunken", "confirmed"):
            assert number(best, which, label) in card
            assert number(best, which, label) in page
        for differences in results.paired(best).values():
            rival, difference = differences[label]
            assert f"{with_error(difference, '+')} ({rival})" in card
            assert with_error(difference, "+") in page
        gap = results.optimism("search")[label]
        assert f"{label}: on average over the finalists the search&#x27;s number was {abs(gap):.3f} too" in page


def test_optimism_is_the_mean_gap_to_what_was_confirmed(runs: dict[str, Path]) -> None:
    for name, sign in (("one", 1), ("losses", -1)):
        results = evomerge.load(runs[name])
        rows = [results.rows[number] for number in results.finalists]
        for which in ("search", "shrunken"):
            gaps = [row.values(which)["math_ja"][0] - row.values("confirmed")["math_ja"][0] for row in rows]
            assert results.optimism(which)["math_ja"] == pytest.approx(sign * sum(gaps) / len(gaps))


@pytest.mark.parametrize("kind", Kind)
def test_a_run_is_seen_by_another_estimator(kind: str, runs: dict[str, Path], cli: Cli) -> None:
    found = cli("show", runs["one"], "--json", "--estimator", kind)
    assert found.status == 0, found.err
    other, own = json.loads(found.out), json.loads(cli("show", runs["one"], "--json").out)
    assert other["estimator"] == kind
    for mine, theirs in zip(own["front"], other["front"], strict=True):
        assert mine["confirmed"] == theirs["confirmed"]
    same = all(mine["search"] == theirs["search"] for mine, theirs in zip(own["front"], other["front"], strict=True))
    assert same == (kind == "aipw")
    remark = f"search and shrunken values are by {kind}; the search went by aipw"
    assert (remark in cli("show", runs["one"], "--estimator", kind).out) == (kind != "aipw")


def test_the_command_line_knows_every_estimator() -> None:
    assert list(Kind) == list(get_args(EstimatorKind))


def test_an_estimator_that_does_not_exist_is_refused_with_those_that_do(runs: dict[str, Path], cli: Cli) -> None:
    found = cli("show", runs["one"], "--estimator", "median")
    assert found.status == 2
    assert "'--estimator'" in found.err
    for kind in Kind:
        assert f"'{kind}'" in found.err


def test_an_estimator_of_chances_refuses_other_marks(runs: dict[str, Path], cli: Cli) -> None:
    for kind in ("p_irt", "gp_irt", "mp_irt", "gmp_irt", "blend"):
        found = cli("show", runs["losses"], "--estimator", kind)
        assert found.status == 2
        assert found.err == (
            f"evomerge: estimator {kind} needs marks in [0, 1], and those of 'perplexity' of task 'math_ja' are not;"
            " use aipw, difference or mean\n"
        )
    assert cli("show", runs["losses"], "--estimator", "difference").status == 0


def test_a_plan_says_what_a_candidate_is_put_to(cli: Cli, run_file: Write) -> None:
    whole = cli("plan", run_file("whole.yaml", fitness=few_items(items="all"))).out
    assert "estimator  aipw: a candidate is put to 24 of 24 search items of math_ja\n" in whole
    assert "generation" not in whole
    part = cli("plan", run_file("part.yaml", fitness=few_items("math_ja", "lists", rungs=[2, 4], keep=0.25))).out
    assert "put to 8 of 24 search items of math_ja, 8 of 24 search items of lists" in part
    assert "drawn at random, more often where more is to be learnt, others for every generation" in part
    assert "after 2, 4 of them only the best 25 % get more" in part
    assert "10 % as many again for scoring elites on other items" in part
    fixed = cli("plan", run_file("fixed.yaml", fitness=few_items(kind="weighted"))).out
    assert "chosen to stand for all, by what the parents answered, always the same" in fixed
    assert "scoring elites" not in fixed
    tokens = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) tokens", fixed)]
    assert tokens[1] == pytest.approx(3 * 3 * tokens[0], abs=9), "three parents on three times as many items"
    assert "for 3 parents on all search items" in fixed


def test_a_plan_divides_a_budget_of_items_by_what_a_candidate_costs(run_file: Write) -> None:
    from evomerge.assemble import plan

    parents, outside = 3, 2
    for budget in ({"evaluations": 10}, {"item_evaluations": parents * 24 + 7 * 8 + 5}):
        fitness = few_items(refresh=0)
        found = plan(run_file(fitness=fitness, budget=budget))
        assert len(found.outside) == outside
        each = found.merge_seconds + found.score_seconds
        left = (found.search_seconds - found.parents_seconds) / each
        assert left == pytest.approx(10 - parents + outside)


def test_chosen_items_are_no_sample(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    fitness = few_items("math_ja", kind="weighted", items=6)
    assert cli("search", run_file(fitness=fitness), "--out", run).status == 0
    refused = cli("show", run, "--estimator", "aipw")
    assert refused.status == 2
    assert "estimator aipw needs items drawn by chance" in refused.err
    assert "weighted" in refused.err
    for kind in ("weighted", "mean", "p_irt"):
        results = evomerge.load(run, kind)
        for row in results.rows.values():
            values = results.appraiser.values(row.number)
            assert values is None or row.name in results.parent_names or values["math_ja"].error > 1e-4


def test_rungs_lead_up_to_all_items_too(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    fitness = few_items("math_ja", items="all", rungs=[6, 12])
    assert cli("search", run_file(fitness=fitness), "--out", run).status == 0
    results = evomerge.load(run)
    sizes = {n: sum(piece.size() for piece in pieces) for n, pieces in results.appraiser.ledger.candidates()}
    named = {row.number for row in results.rows.values() if row.name in results.parent_names}
    assert {6, 12, 24} <= {size for number, size in sizes.items() if number not in named}
    for place, size in sizes.items():
        values = results.appraiser.values(place)
        assert values is not None
        assert (values["math_ja"].error == 0) == (size == 24 or place in named)


def test_a_run_from_before_there_were_estimators_is_read(runs: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(runs["one"], old)
    make_older(old, 1)
    found = json.loads(cli("show", old, "--json").out)
    assert found["estimator"] == "mean"
    assert evomerge.load(old).fitness.estimator.items == "all"


def test_nothing_can_be_written_for_a_calibration_left_out(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    fitness = few_items("math_ja", calibration=None)
    assert cli("plan", run_file(fitness=fitness)).status == 0
    missing = cli("plan", run_file(fitness=few_items("math_ja", calibration="there-is-none.npz")))
    assert missing.status == 2
    assert "there-is-none.npz" in missing.err
    wrong = cli("plan", run_file(fitness=few_items("math_ja", kind="weighted", rungs=[4])))
    assert wrong.status == 2
    assert "rungs need items drawn by chance" in wrong.err
