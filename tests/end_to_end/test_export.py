"""What is exported is what was scored, in three forms, and can be made again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import DEMO_MODELS, Typed, small_fitness
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.assemble import export, load, search
from evomerge.checkpoint import open_parents
from evomerge.checkpoint import write as writing
from evomerge.evaluate import EvaluatorFactory
from evomerge.spec import load_run

Cli = Callable[..., Typed]
Write = Callable[..., Path]
FILES = {
    "README.md", "SHA256SUMS", "config.json", "generation_config.json", "mergekit.yml", "model.safetensors",
    "recipe.yaml", "reproduce.json", "run.yaml", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def test_everything_is_there_and_whole(cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "best"
    found = cli("export", finished["one"], "--pick", "best", "--out", out)
    assert found.status == 0, found.err
    assert {path.name for path in out.iterdir()} == FILES
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    card = (out / "README.md").read_text()
    results = load(finished["one"])
    assert results.best is not None
    assert card.startswith("---\nlibrary_name: transformers")
    assert f"candidate {results.best.number}" in card
    assert "| math_ja |" in card
    assert "task arithmetic" in card
    how = json.loads((out / "reproduce.json").read_text())
    assert how["spec"]["spec"]["seed"] == 5
    assert how["versions"]["torch"] == torch.__version__
    assert [path for path in tmp_path.iterdir() if path != out] == [], "no temporary folder is left"


def test_weights_are_bitwise_those_that_were_scored(finished: dict[str, Path], tmp_path: Path) -> None:
    results = load(finished["one"])
    run = results.file.spec
    evaluator = EvaluatorFactory(run.models, run.fitness, run.seed, "cpu").build()
    row = results.pick("number:17")
    (piece,) = results.appraiser.ledger.of(17)
    assert evaluator.marks(results.recipe(17), piece.draw) == piece.marks, "the journal's marks are a fresh process's"
    resident = {name: tensor.clone() for name, tensor in evaluator.live.model.state_dict().items()}
    export(results, "number:17", tmp_path / "M", formats=["model"])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "M", dtype=torch.float32).state_dict()
    assert all(torch.equal(loaded[name], resident[name]) for name in resident)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "M").dtype == torch.float16
    assert row.number == 17


def test_the_exported_folder_answers(finished: dict[str, Path], tmp_path: Path) -> None:
    export(load(finished["one"]), "best", tmp_path / "M", formats=["model"])
    model, tokenizer = (kind.from_pretrained(tmp_path / "M") for kind in (AutoModelForCausalLM, AutoTokenizer))
    inputs = tokenizer("Solve: 二十足す三十は？ =>", return_tensors="pt")
    made = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=8)
    assert tokenizer.decode(made[0, inputs.input_ids.shape[1] :])


def test_the_recipe_merges_to_the_same_bytes(cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    assert cli("export", finished["two"], "--pick", "knee", "--out", tmp_path / "M").status == 0
    found = cli("merge", tmp_path / "M/recipe.yaml", "--out", tmp_path / "again")
    assert found.status == 0, found.err
    same = (tmp_path / "again/model.safetensors").read_bytes()
    assert same == (tmp_path / "M/model.safetensors").read_bytes()
    assert (tmp_path / "again/recipe.yaml").read_bytes() == (tmp_path / "M/recipe.yaml").read_bytes()


@pytest.mark.parametrize("form", ["model", "recipe", "mergekit"])
def test_one_form_alone(form: str, cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / form
    assert cli("export", finished["two"], "--pick", "lists", "--format", form, "--out", out).status == 0
    names = {path.name for path in out.iterdir()}
    assert ("model.safetensors" in names) == (form == "model")
    assert ("mergekit.yml" in names) == (form == "mergekit")
    assert {"recipe.yaml", "run.yaml"} <= names, "the card and reproduce.json speak of them"
    assert load_run(out / "run.yaml") == load(finished["two"]).file.spec


def test_force_replaces_and_a_failure_replaces_nothing(cli: Cli, finished: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "M"
    assert cli("export", finished["one"], "--pick", "number:3", "--out", out).status == 0
    before = (out / "SHA256SUMS").read_text()
    assert cli("export", finished["one"], "--pick", "nobody", "--out", out, "--force").status == 2
    assert (out / "SHA256SUMS").read_text() == before
    assert cli("export", finished["one"], "--pick", "number:17", "--out", out, "--force").status == 0
    assert (out / "SHA256SUMS").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["M"]


def test_a_doubtful_pick_is_remarked_upon(finished: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    results = load(finished["two"])
    parent = next(row for row in results.baselines if row.name == "maths")
    found = cli("export", finished["two"], "--pick", parent.number, "--format", "recipe", "--out", tmp_path / "A")
    assert f"candidate {parent.number} is maths, unchanged" in found.out
    assert "--pick knee" in found.out
    lone = next(row for row in results.rows.values() if row.confirmed is None)
    found = cli("export", finished["two"], "--pick", lone.number, "--format", "recipe", "--out", tmp_path / "B")
    assert "is not confirmed on held-out items" in found.out


def test_an_expert_lends_its_tokenizer_and_chat_template(run_file: Write, cli: Cli, tmp_path: Path) -> None:
    """As with instruct experts over a plain base."""
    chatty = tmp_path / "chatty"
    shutil.copytree(DEMO_MODELS / "maths", chatty)
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (chatty / "chat_template.jinja").write_text(template)
    models = {"base": str(DEMO_MODELS / "base"), "experts": {"maths": str(chatty)}}
    chat = small_fitness()
    chat["objectives"] = {"maths": {"task": "math_ja", "metric": "acc", "chat_template": True}}
    found = cli("plan", run_file("plain.yaml", models=models, fitness=chat))
    assert found.status == 2
    assert "has no chat template" in found.err
    assert "models.template" in found.err
    lent = run_file("lent.yaml", models={**models, "template": "maths"}, fitness=chat, budget={"evaluations": 6})
    assert cli("search", lent, "--out", tmp_path / "RUN").status == 0
    assert cli("export", tmp_path / "RUN", "--pick", "best", "--out", tmp_path / "M").status == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "M").chat_template == template
    assert cli("merge", tmp_path / "M/recipe.yaml", "--out", tmp_path / "AGAIN").status == 0
    for name in ("model.safetensors", "chat_template.jinja", "config.json"):
        assert (tmp_path / "M" / name).read_bytes() == (tmp_path / "AGAIN" / name).read_bytes()


def test_large_models_are_written_in_shards(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load(finished["one"])
    export(results, "best", tmp_path / "whole", formats=["model"])
    monkeypatch.setattr(writing, "SHARD_BYTES", 300_000)
    export(results, "best", tmp_path / "cut", formats=["model"])
    shards = sorted((tmp_path / "cut").glob("*.safetensors"))
    assert len(shards) > 3
    index = json.loads((tmp_path / "cut/model.safetensors.index.json").read_text())
    whole = load_file(tmp_path / "whole/model.safetensors")
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == sum(t.numel() * 2 for t in whole.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.items())
    reread = open_parents(None, {"cut": str(tmp_path / "cut")}, 0)
    assert reread.anatomy.parameters == sum(t.numel() for t in whole.values())


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Share of weights that differ by more than a step of fp16."""
    wrong = total = 0
    for name, tensor in ours.items():
        difference = (tensor.float() - theirs[name].float()).abs()
        wrong += int((difference > 2**-10 * tensor.float().abs() + 1e-7).sum())
        total += tensor.numel()
    return wrong / total


@pytest.mark.parametrize(
    ("space", "exact"),
    [("per-layer", True), ("per-component", True), ("ties", True), ("slerp", True), ("dare-ties", False)],
)
def test_mergekit_merges_its_configuration_to_the_same_model(
    space: str, exact: bool, run_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Within one step of the stored dtype: mergekit sums in another order."""
    path = run_file(space=space, budget={"evaluations": 14}, optimizer={"kind": "random"})
    results = search(load_run(path), tmp_path / "RUN")
    number = max(row.number for row in results.rows.values() if row.origin == "search")
    found = export(results, f"number:{number}", tmp_path / "ours")
    remarks = [remark for remark in found if "not confirmed" not in remark]
    text = (tmp_path / "ours/mergekit.yml").read_text()
    plain = yaml.safe_load(text)
    run_merge(MergeConfiguration.model_validate(plain), str(tmp_path / "theirs"), MergeOptions(quiet=True))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert set(ours) == set(theirs)
    # Trimming 16-bit task vectors meets ties at the threshold, of which mergekit keeps some and we keep all.
    assert (apart(ours, theirs) <= (0.01 if space == "ties" else 0.0)) == exact
    assert any("trimming threshold" in remark for remark in remarks) == (space == "ties")
    assert bool(remarks) == (space in ("ties", "dare-ties"))
    assert ("other random masks" in text) != exact


def test_a_mergekit_configuration_is_merged_as_mergekit_does(cli: Cli, tmp_path: Path) -> None:
    """Gradients, filters, slices, a base by path: what people have lying around."""
    models = {name: str(DEMO_MODELS / name) for name in ("base", "maths", "japanese")}
    gradient = {
        "merge_method": "ties",
        "base_model": models["base"],
        "models": [
            {"model": models["base"]},
            {"model": models["maths"], "parameters": {"weight": [0.2, 0.9, 1.1], "density": 0.6}},
            {
                "model": models["japanese"],
                "parameters": {
                    "weight": [
                        {"filter": "mlp", "value": [0.9, 0.1]},
                        {"filter": "embed", "value": 1.2},
                        {"value": 0.5},
                    ],
                    "density": [1.0, 0.4],
                },
            },
        ],
        "parameters": {"normalize": True, "lambda": 1.1},
        "dtype": "float32",
        "out_dtype": "float16",
    }
    slerp = {
        "merge_method": "slerp",
        "base_model": models["maths"],
        "slices": [
            {
                "sources": [
                    {"model": models["maths"], "layer_range": [0, 6]},
                    {"model": models["japanese"], "layer_range": [0, 6]},
                ]
            }
        ],
        "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.4}]},
        "dtype": "float32",
        "out_dtype": "float16",
    }
    for name, plain in (("gradient", gradient), ("slerp", slerp)):
        config = tmp_path / f"{name}.yml"
        config.write_text(yaml.safe_dump(plain))
        found = cli("merge", config, "--out", tmp_path / name)
        assert found.status == 0, found.err
        run_merge(MergeConfiguration.model_validate(plain), str(tmp_path / f"{name}-theirs"), MergeOptions(quiet=True))
        ours, theirs = (load_file(tmp_path / f / "model.safetensors") for f in (name, f"{name}-theirs"))
        assert apart(ours, theirs) <= (0.01 if name == "gradient" else 0.0)


def test_a_model_called_base_is_not_taken_for_the_base(cli: Cli, tmp_path: Path) -> None:
    """Task arithmetic from `maths`, with the folder `base` as one of its models, and the recipe that comes of it."""
    models = {name: str(DEMO_MODELS / name) for name in ("base", "maths", "japanese")}
    plain = {
        "merge_method": "task_arithmetic",
        "base_model": models["maths"],
        "models": [{"model": models[name], "parameters": {"weight": 0.4}} for name in ("base", "japanese")],
        "dtype": "float32",
        "out_dtype": "float16",
    }
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain))
    assert cli("merge", tmp_path / "c.yml", "--out", tmp_path / "ours").status == 0
    run_merge(MergeConfiguration.model_validate(plain), str(tmp_path / "theirs"), MergeOptions(quiet=True))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert apart(ours, theirs) == 0.0
    recipe = yaml.safe_load((tmp_path / "ours/recipe.yaml").read_text())
    assert {name: Path(folder["path"]).name for name, folder in recipe["parents"].items()} == {
        "base": "maths", "base 2": "base", "japanese": "japanese",
    }  # fmt: skip

    # By hand: the base under a name of its own, another model under `base`.
    text = (tmp_path / "ours/recipe.yaml").read_text()
    swapped = (
        text.replace("base 2", "two").replace("parent: base", "parent: one").replace("template: base", "template: one")
    )
    renamed = yaml.safe_load(swapped)
    renamed["parents"]["one"] = renamed["parents"].pop("base")
    final = yaml.safe_dump(renamed, sort_keys=False).replace("parent: two", "parent: base")
    (tmp_path / "hand.yaml").write_text(final.replace("  two:", "  base:"))
    found = cli("merge", tmp_path / "hand.yaml", "--out", tmp_path / "hand")
    assert found.status == 0, found.err
    same = (tmp_path / "hand/model.safetensors").read_bytes()
    assert same == (tmp_path / "ours/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_method": "karcher"}, '"karcher" is a method of mergekit\'s that evomerge has not; give one of linear'),
        ({"models": None}, "has neither models nor slices; give some"),
        ({"parameters": {}, "models": [{"model": "A"}, {"model": "B"}]}, "B does not exist"),
    ],
)
def test_a_mergekit_configuration_that_cannot_be_read(
    change: dict[str, object], words: str, cli: Cli, tmp_path: Path
) -> None:
    plain: dict[str, object] = {"merge_method": "linear", "models": [{"model": str(DEMO_MODELS / "maths")}]}
    (tmp_path / "A").write_text("")
    (tmp_path / "c.yml").write_text(yaml.safe_dump(plain | change))
    found = cli("merge", tmp_path / "c.yml", "--out", tmp_path / "M")
    assert found.status == 2, found
    assert words in found.err
