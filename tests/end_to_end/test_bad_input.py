"""Bad input gets one line that names the file, the field, the value and the way out; exit 2, nothing overwritten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DEMO_MODELS, Typed, edited, refused, small_fitness
from journals import make_older
from lm_tasks import write_tasks
from safetensors.torch import load_file, save_file

from evomerge.files import write_sums

Cli = Callable[..., Typed]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(budgt={}), ["run.yaml", "budgt", "did you mean budget?"]),
        (lambda p: p["budget"].update(evalutions=3), ["budget.evalutions", "did you mean evaluations?"]),
        (lambda p: p.update(budget={}), ["budget", "sets no limit", "evaluations"]),
        (lambda p: p.update(budget={"stall": 9}), ["budget", "sets no limit", "evaluations"]),
        (lambda p: p["budget"].update(target={"maths": 1}), ["budget.target: 'maths' is no objective", "math_ja"]),
        (lambda p: p["budget"].update(evaluations=0), ["budget.evaluations is 0", "greater than or equal to 1"]),
        (lambda p: p.update(space={"weight": [1.5, 0.0]}), ["space.weight: [1.5, 0.0] is upside down", "[0, 1.5]"]),
        (lambda p: p.update(space={"operator": "tise"}), ["space.operator is 'tise'", "'ties'"]),
        (lambda p: p.update(space={"operator": {"kind": "ties", "lamda": 2}}), ["lamda", "did you mean lambda?"]),
        (lambda p: p.update(space={"groups": "some"}), ["space.groups is \"some\"", "[[0, 3], [4, 7]]"]),
        (lambda p: p.update(space={"weight": "high"}), ["space.weight is \"high\"", "range [low, high]"]),
        (lambda p: p.update(space=[1, 2]), ["space is [1, 2]", "keys and values"]),
        (lambda p: p.update(space={"density": 0.5}), ["task_arithmetic has no density", "ties"]),
        (lambda p: p.update(space={"operator": "ties", "density": [0.2, 1.4]}), ["density", "1.4", "from 0 to 1"]),
        (lambda p: p.update(space={"operator": "ties", "density": [0.5, 0.502]}), ["density", "steps of 0.005"]),
        (lambda p: p.update(space={"operator": {"kind": "ties", "lambda": 0}}), ["lambda: 0", "another lambda"]),
        (lambda p: p.update(space={"operator": "linear", "weight": [-1, 1]}), ["negative weights", "begin"]),
        (lambda p: p.update(space={"operator": "ties", "weight": [-1, 1]}), ["negative weights", "begin"]),
        (lambda p: p.update(space="per-layr"), ["space: 'per-layr'", "did you mean per-layer?"]),
        (lambda p: p.update(space={"groups": [[0, 2], [4, 5]]}), ["[4, 5]", "must begin at layer 3"]),
        (lambda p: p.update(space={"groups": [[0, 2]]}), ["end at layer 2", "last layer is 5"]),
        (lambda p: p.update(space={"groups": 7}), ["7", "6 layers"]),
        (lambda p: p.update(space={"outer": "math"}), ["space.outer: 'math'", "maths"]),
        (lambda p: p.update(space={"weight": 1.0}), ["nothing is searched", "range"]),
        (lambda p: p.update(space={"operator": "slerp", "weight": [0, 1]}) or p["models"]["experts"].update(
            lists=str(DEMO_MODELS / "lists")), ["slerp takes two models", "3 experts"]),
        (lambda p: p["models"].update(template="math"), ["models.template: 'math'", "base, maths"]),
        (lambda p: p["models"].pop("base"), ["task_arithmetic", "needs models.base"]),
        (lambda p: p.update(optimizer="cmaes"), ["optimizer is 'cmaes'", "'cma'"]),
        (lambda p: p.update(optimizer={"kind": "cmaes"}), ["optimizer is 'cmaes'", "'cma'"]),
        (lambda p: p.update(optimizer={"kind": "cma", "populaton": 4}), ["populaton", "population"]),
        (lambda p: p.update(seed=-1), ["seed is -1"]),
        (lambda p: p.update(device="gpu"), ["device: 'gpu'", "cuda"]),
        (lambda p: p.update(device="cuda:7"), ["device: 'cuda:7'"]),
        (lambda p: p.update(executor={"kind": "ray", "gpus": 2}), ["executor.gpus is 2", "1"]),
        (lambda p: p.update(executor={"kind": "ray", "address": "ray://a:1"}), ["executor.address", "ray job submit"]),
        (lambda p: p.pop("fitness"), ["fitness is missing"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(metric="f1"), ["'f1'", "acc, perplexity"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(chat_template=True), ["no chat template"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(chat_template="tool_use"), ["chat_template", "bool"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(generation={"max_gen_toks": 3}), ["generates nothing"]),
        (lambda p: p["fitness"]["items"].update(search=1390), ["1400 documents", "lower one"]),
        (lambda p: p["fitness"]["items"].update(report=1390), ["1390 report are 1430", "lower one"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(split="dev"), ["split is \"dev\"", "'validation'"]),
        (lambda p: p["fitness"]["objectives"]["math_ja"].update(split="train"), ["no train split; it has test"]),
        (lambda p: p["fitness"]["items"].update(group="pair"), ["no field 'pair'", "answer, group, prompt"]),
        (lambda p: p["fitness"].update(include=["nowhere"]), ["nowhere", "folder"]),
        (lambda p: p.update(start=["nothing.yaml"]), ["nothing.yaml", "neither a recipe file nor a run folder"]),
    ],
)  # fmt: skip
def test_a_run_file_that_is_wrong(change: Callable[[Any], object], words: list[str], cli: Cli, run_file: Write) -> None:
    path = edited(run_file(), change)
    refused(cli("plan", path), *words)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"task": "together", "metric": "mcc"}, ["objectives.x.metric", "'together' gives no 'mcc'", "it gives acc"]),
        ({"task": "together", "tie_break": {"metric": "mcc", "weight": 0.1}}, ["tie_break.metric", "'mcc'", "acc"]),
        ({"task": "over_all"}, ["'over_all' gives no metric per document, only bleu over all"]),
    ],
)
@pytest.mark.parametrize("command", ["plan", "search"])
def test_a_metric_over_many_documents_together(
    command: str, objective: dict[str, Any], words: list[str], cli: Cli, run_file: Write, tmp_path: Path
) -> None:
    fitness = {"include": [str(write_tasks(tmp_path / "tasks"))], "objectives": {"x": objective}}
    path = run_file(fitness=fitness)
    out = ("--out", tmp_path / "RUN") if command == "search" else ()
    refused(cli(command, path, *out), *words)
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"cost": "depth"}, ['fitness.objectives.x.cost is "depth"', "'layers' or 'parameters'"]),
        ({}, ["fitness.objectives.x: needs one of task: NAME", "cost: layers"]),
        ({"task": "math_ja", "cost": "layers"}, ["fitness.objectives.x: needs one of task: NAME", "cost: layers"]),
        ({"task": "(cost)"}, ["fitness.objectives.x: needs a task of another name", "(cost)"]),
        ({"cost": "layers", "weight": 0}, ["objectives.x.weight is 0", "greater than 0"]),
        ({"cost": "layers", "metric": "acc"}, ["objectives.x: metric has no meaning for a cost", "leave it out"]),
        ({"cost": "layers", "direction": "min"}, ["objectives.x: direction has no meaning for a cost"]),
        ({"cost": "layers", "fewshot": 0}, ["objectives.x: fewshot has no meaning for a cost"]),
        ({"cost": "layers", "chat_template": True}, ["objectives.x: chat_template has no meaning for a cost"]),
        ({"cost": "layers", "tie_break": {"metric": "acc", "weight": 1}}, ["tie_break has no meaning for a cost"]),
    ],
)
def test_an_objective_that_is_neither_a_task_nor_a_cost(
    objective: dict[str, Any], words: list[str], cli: Cli, run_file: Write
) -> None:
    path = edited(run_file(), lambda p: p["fitness"]["objectives"].update(x=objective))
    refused(cli("plan", path), "run.yaml", *words)


def test_costs_alone_are_no_fitness(cli: Cli, run_file: Write) -> None:
    costs = {"depth": {"cost": "layers"}, "size": {"cost": "parameters", "weight": 2.0}}
    path = edited(run_file(), lambda p: p["fitness"].update(objectives=costs))
    refused(cli("plan", path), "run.yaml: fitness: objectives are costs alone", "add one with a task")


def test_a_metric_left_out_is_the_first_that_documents_have(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    fitness = {
        "include": [str(write_tasks(tmp_path / "tasks"))],
        "objectives": {"x": {"task": "together"}},
        "items": {"search": 8, "confirm": 8},
    }
    path = run_file(fitness=fitness, budget={"evaluations": 6})
    found = cli("search", path, "--out", tmp_path / "RUN")
    assert found.status == 0, found.err


def test_an_unknown_task_comes_with_near_names(cli: Cli, run_file: Write) -> None:
    path = run_file(fitness=small_fitness() | {"objectives": {"x": {"task": "math_jaa"}}})
    refused(cli("plan", path), "no task 'math_jaa'", "did you mean", "math_ja")


def test_a_file_that_is_no_run_file(cli: Cli, tmp_path: Path) -> None:
    refused(cli("plan", tmp_path / "none.yaml"), "none.yaml", "cannot be read")
    (tmp_path / "list.yaml").write_text("- 1\n")
    refused(cli("plan", tmp_path / "list.yaml"), "list.yaml", "expected keys and values")
    (tmp_path / "torn.yaml").write_text("a: [1\n")
    refused(cli("plan", tmp_path / "torn.yaml"), "torn.yaml", "not valid YAML")


def spoiled(tmp_path: Path, name: str = "japanese") -> Path:
    """A private copy of an expert, to be broken."""
    folder = tmp_path / name
    shutil.copytree(DEMO_MODELS / name, folder)
    return folder


def with_expert(run_file: Write, folder: Path) -> Path:
    return edited(run_file(), lambda p: p["models"]["experts"].update(japanese=str(folder)))


def test_an_expert_of_another_shape(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.3.mlp.up_proj.weight"] = torch.zeros(200, 80, dtype=torch.float16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(cli("plan", with_expert(run_file, folder)), "japanese", "layers.3.mlp.up_proj", "[200, 80]", "[240, 80]")


def test_an_expert_of_another_architecture(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    refused(cli("plan", with_expert(run_file, folder)), "japanese", "rms_norm_eps", "1e-05", "1e-06")


def test_a_truncated_safetensors_file(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(cli("plan", with_expert(run_file, folder)), "models.experts.japanese", "model.safetensors", "cut short")


def test_a_missing_tensor(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.input_layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(cli("plan", with_expert(run_file, folder)), "japanese", "model.layers.1.input_layernorm.weight")


def test_a_missing_shard(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(cli("plan", with_expert(run_file, folder)), "model-00001-of-00002.safetensors", "missing")


def test_pickled_weights(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(cli("plan", with_expert(run_file, folder)), "pytorch_model.bin", "pickle", "save_pretrained")


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_parent_with_numbers_that_are_none(poison: float, cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.self_attn.q_proj.weight"][3, 4] = poison
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(cli("plan", with_expert(run_file, folder)), "japanese", "layers.2.self_attn.q_proj", "NaN or infinity")


def test_a_tokenizer_that_differs(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    plain = json.loads((folder / "tokenizer.json").read_text())
    word = next(word for word, place in plain["model"]["vocab"].items() if place == 300)
    plain["model"]["vocab"]["ZZ"] = plain["model"]["vocab"].pop(word)
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    refused(cli("plan", with_expert(run_file, folder)), "tokenizer.json", "models.base", "vocabulary", "300")


def test_a_tokenizer_that_only_looks_different(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    plain = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(plain, indent=4))
    assert cli("plan", with_expert(run_file, folder)).status == 0


def test_a_folder_without_config(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    (folder / "config.json").unlink()
    refused(cli("plan", with_expert(run_file, folder)), "japanese", "config.json")


def test_a_folder_that_is_not_there(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    refused(cli("plan", with_expert(run_file, tmp_path / "none")), "models.experts.japanese", "none", "hub id")


def test_a_hub_id_that_cannot_be_fetched(cli: Cli, run_file: Write) -> None:
    path = edited(run_file(), lambda p: p["models"]["experts"].update(japanese="nobody/nothing@main"))
    refused(cli("plan", path), "nobody/nothing", "there is no folder nobody/nothing")


def test_a_grace_that_is_none(run_file: Write, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_GRACE", "soon")
    refused(cli("search", run_file(), "--out", tmp_path / "RUN"), "EVOMERGE_GRACE", "'soon'", "seconds")
    monkeypatch.setenv("EVOMERGE_GRACE", "30")
    assert cli("resume", tmp_path / "RUN").status == 0


def test_an_existing_output_folder(cli: Cli, run_file: Write, tmp_path: Path, finished: dict[str, Path]) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("mine")
    refused(cli("search", run_file(), "--out", kept), "kept exists already", "--out")
    refused(cli("export", finished["one"], "--out", kept), "kept exists already", "--force")
    refused(cli("merge", run_file(), "--out", kept), "kept exists already", "--force")
    refused(cli("search", run_file(), "--out", finished["one"]), "evomerge resume")
    assert (kept / "thesis.txt").read_text() == "mine"
    assert [path.name for path in kept.iterdir()] == ["thesis.txt"]


def test_a_folder_that_is_no_run(cli: Cli, tmp_path: Path) -> None:
    for command in ("show", "resume", "report", "confirm"):
        refused(cli(command, tmp_path), "holds no run", "spec.yaml")


def test_a_run_from_a_newer_format(cli: Cli, copy_of_run: Callable[[str], Path]) -> None:
    run = copy_of_run("one")
    edited(run / "spec.yaml", lambda plain: plain.update(format=4))
    (run / "journal.jsonl").write_text("{}\n")
    refused(cli("show", run), "spec.yaml", "format is 4", "newer evomerge")


def test_a_journal_damaged_in_the_middle(cli: Cli, copy_of_run: Callable[[str], Path]) -> None:
    run = copy_of_run("one")
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for damage in (lines[20][:-9] + b"\n", lines[20].replace(b'"kind"', b'"kine"'), b"\n"):
        (run / "journal.jsonl").write_bytes(b"".join([*lines[:20], damage, *lines[21:]]))
        for command in ("show", "resume"):
            refused(cli(command, run), "journal.jsonl", "damaged in line 21", "restore it from a copy")
    assert len((run / "journal.jsonl").read_bytes().splitlines()) == len(lines), "nothing was cut off"


def test_marks_that_were_changed(cli: Cli, copy_of_run: Callable[[str], Path]) -> None:
    run = copy_of_run("one")
    marks = bytearray((run / "responses/marks.f64").read_bytes())
    marks[100] ^= 1
    (run / "responses/marks.f64").write_bytes(bytes(marks))
    refused(cli("show", run), "marks.f64", "damaged at byte 0")


def test_a_parent_that_changed_since(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    folder = spoiled(tmp_path)
    path = with_expert(run_file, folder)
    assert cli("search", path, "--out", tmp_path / "RUN").status == 0
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    before = {each: each.read_bytes() for each in (tmp_path / "RUN").rglob("*") if each.is_file()}
    refused(cli("resume", tmp_path / "RUN", "--budget", 20), "japanese", "has changed since", "restore it")
    assert before == {each: each.read_bytes() for each in (tmp_path / "RUN").rglob("*") if each.is_file()}
    refused(cli("export", tmp_path / "RUN", "--out", tmp_path / "M"), "japanese", "has changed since")


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        ("number:9999", ["number:9999", "evomerge show"]),
        ("number:x", ["number:x"]),
        ("bset", ["'bset'", "best, math_ja, number:N"]),
        ("knee", ["'knee'", "best"]),
    ],
)
def test_a_pick_that_is_not_there(
    pick: str, words: list[str], cli: Cli, finished: dict[str, Path], tmp_path: Path
) -> None:
    refused(cli("export", finished["one"], "--pick", pick, "--out", tmp_path / "M"), *words)


def test_options_of_ray_need_ray(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    refused(cli("search", run_file(), "--out", tmp_path / "R", "--address", "auto"), "--address", "--executor ray")
    refused(cli("search", run_file(), "--out", tmp_path / "R", "--workers", "2"), "--workers", "--executor ray")
    nowhere = cli("search", run_file(), "--out", tmp_path / "R", "--executor", "ray", "--address", "127.0.0.1:1")
    refused(nowhere, "executor.address", "127.0.0.1:1", "local to start Ray here")
    client = cli("search", run_file(), "--out", tmp_path / "R", "--executor", "ray", "--address", "ray://a:1")
    refused(client, "address", "ray job submit")
    assert not (tmp_path / "R").exists()


def test_an_executor_on_the_command_line_overrides_the_file(cli: Cli, run_file: Write, tmp_path: Path) -> None:
    path = run_file(executor={"kind": "ray", "address": "127.0.0.1:1"}, device="gpu")
    refused(cli("search", path, "--out", tmp_path / "R"), "executor.address", "127.0.0.1:1")
    refused(cli("search", path, "--out", tmp_path / "R", "--executor", "inline"), "device: 'gpu'")


def test_a_report_that_cannot_be_put_there(cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "nodir/x.html"
    refused(cli("report", finished["one"], "--out", page), "--out", "x.html", "nodir is not a folder")
    refused(cli("report", finished["one"], "--out", tmp_path), "--out", "is a folder")


def test_a_recipe_that_is_wrong(cli: Cli, tmp_path: Path, finished: dict[str, Path]) -> None:
    from evomerge.assemble import load
    from evomerge.export.folder import write_recipe

    results = load(finished["one"])
    write_recipe(tmp_path / "good.yaml", results.recipe(3))
    plain = yaml.safe_load((tmp_path / "good.yaml").read_text())

    def broken(change: Callable[[dict[str, Any]], object]) -> Path:
        copy = json.loads(json.dumps(plain))
        change(copy)
        (tmp_path / "bad.yaml").write_text(yaml.safe_dump(copy))
        return tmp_path / "bad.yaml"

    for change, words in (
        (lambda p: p.update(layerz=[]), ["bad.yaml", "layerz", "did you mean"]),
        (lambda p: p.update(format=9), ["bad.yaml", "format"]),
        (lambda p: p.update(parents=["a"]), ["bad.yaml", "parents is"]),
        (lambda p: p["parents"]["maths"].update(digest="sha256:0"), ["bad.yaml", "parents.maths", "digests differ"]),
        (lambda p: p["parents"]["maths"].update(path="none"), ["bad.yaml", "parents.maths", "none does not exist"]),
        (lambda p: p["parents"].pop("maths"), ["bad.yaml", "'maths'", "not among the parents"]),
        (lambda p: p.update(template="nobody"), ["bad.yaml", "'nobody'"]),
        (lambda p: p["layers"][2].update(scale=0), ["bad.yaml", "layers.2.scale is 0", "0.001"]),
        (lambda p: p["outer"].pop("norm"), ["bad.yaml", "outer.norm is missing", "embeddings, norm"]),
        (lambda p: p["outer"].update(neck=p["outer"]["norm"]), ["bad.yaml", "outer.neck is not there"]),
        (lambda p: p["layers"][1]["blend"]["sources"][0].update(layer=6), ["layers.1: maths gives layer 6", "0 to 5"]),
        (lambda p: p["layers"][1]["blend"]["sources"][0].pop("layer"), ["layers.1: maths gives no layer"]),
        (lambda p: p["outer"]["norm"]["sources"][0].update(layer=1), ["outer.norm", "leave it out"]),
    ):
        refused(cli("merge", broken(change), "--out", tmp_path / "M"), *words)
    assert not (tmp_path / "M").exists()


def test_a_model_to_score_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    found = cli("score", tmp_path / "none", "--fitness", "demo")
    refused(found, "MODEL: ", "none does not exist")
    assert "models.experts" not in found.err


def test_report_items_that_a_fitness_does_not_keep(cli: Cli) -> None:
    refused(
        cli("score", DEMO_MODELS / "maths", "--fitness", "demo", "--items", "report"), "--items report", "set items"
    )


def test_force_replaces_only_what_evomerge_wrote(
    cli: Cli, copy_of_run: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_older(copy_of_run("one"))
    expert = tmp_path / "parents/maths"
    shutil.copytree(DEMO_MODELS / "maths", expert)
    edited(run / "spec.yaml", lambda p: p["spec"]["models"]["experts"].update(maths=str(expert)))
    edited(run / "spec.yaml", lambda p: p["parents"]["models"]["maths"].update(path=str(expert)))
    (tmp_path / "link").symlink_to(expert)
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out, words in (
        (run, ["is", "which is needed"]),
        (run / "responses", ["lies in", "which is needed"]),
        (".", ["holds", "which is needed"]),
        ("..", ["holds", "which is needed"]),
        (expert, ["has no recipe.yaml"]),
        (expert.parent, ["has no recipe.yaml"]),
        ("link", ["symbolic link"]),
        ("file", ["is not a folder"]),
    ):
        refused(cli("export", run, "--format", "recipe", "--out", out, "--force"), *words, "choose another --out")
    # A parent may look like an export: it was one.
    (expert / "recipe.yaml").write_text("format: 1")
    write_sums(expert)
    found = cli("export", run, "--format", "recipe", "--out", expert, "--force")
    refused(found, "is", str(expert), "which is needed")
    for name in ("SHA256SUMS", "recipe.yaml"):
        (expert / name).unlink()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    assert cli("export", run, "--format", "recipe", "--out", "M").status == 0
    (tmp_path / "M/notes.txt").write_text("mine")
    refused(cli("merge", "M/recipe.yaml", "--out", "M", "--force"), "M holds notes.txt", "choose another --out")
    (tmp_path / "M/notes.txt").unlink()
    assert cli("merge", "M/recipe.yaml", "--out", "M", "--force").status == 0
    assert (tmp_path / "M/model.safetensors").exists()
    (tmp_path / "empty").mkdir()
    assert cli("merge", "M/recipe.yaml", "--out", "empty").status == 0
