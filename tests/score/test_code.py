"""Code that task files bring along: it is announced before it runs, and what it does to the process is one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jinja2
import lm_eval.utils
import pytest
import yaml
from conftest import ROOT, Typed, refused

from evomerge.errors import SpecError
from evomerge.fitness import Fitness, Items, Objective
from evomerge.score import open_banks
from evomerge.score.code import read_task_file
from evomerge.score.sandbox import sandboxed
from evomerge.score.tasks import TaskCatalogue

Cli = Callable[..., Typed]
Write = Callable[..., Path]
HEAD = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "lists.jsonl"},
    "test_split": "train",
    "output_type": "multiple_choice",
}
TEMPLATES = {"doc_to_text": "{{prompt}}", "doc_to_choice": ["0", "1"], "doc_to_target": "{{0}}"}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """The demo's tasks, to be changed."""
    return Path(shutil.copytree(ROOT / "fitness/demo", tmp_path / "tasks"))


def use(tasks: Path, task: str = "lists") -> Fitness:
    return Fitness(include=(str(tasks),), objectives={"x": Objective(task=task)}, items=Items(search=4, confirm=4))


def write(tasks: Path, name: str, **keys: object) -> Path:
    """A task file; a value that begins with `!` is a tag."""
    lines = (yaml.safe_dump({key: value}, sort_keys=False) for key, value in keys.items())
    text = "".join(line.replace("'!", "!").replace("f'\n", "f\n") for line in lines)
    path = tasks / f"{name}.yaml"
    path.write_text(text)
    return path


def test_what_runs_is_found_through_includes_groups_and_tags_and_nothing_runs(tasks: Path) -> None:
    for module in ("asked", "inner", "graded", "sub/far"):
        (tasks / f"{module}.py").parent.mkdir(exist_ok=True)
        (tasks / f"{module}.py").write_text("raise SystemExit('it ran')")
    write(tasks, "_base", include="_deeper", doc_to_text="!function asked.f", **HEAD)
    (tasks / "_deeper").write_text("fewshot_config: {sampler: first_n, samples: !function inner.f}\n")
    write(tasks, "one", task="one", include="_base.yaml", tag="tagged", doc_to_target="{{0}}")
    write(tasks, "two", task="two", process_results="!function graded.f", metric_list=[{"metric": "mine"}], **HEAD)
    write(tasks, "three", task="three", custom_dataset="!function sub.far.f", metric_list=[{"metric": "theirs"}])
    write(tasks, "four", task="four", doc_to_text="!function os.path.f", **HEAD)
    write(tasks, "all", group="all", task=["one", {"group": "rest", "task": [{"task": "two"}, "three"]}])
    found = {name: list(TaskCatalogue(use(tasks, name)).code(name)) for name in ("one", "tagged", "two", "four", "all")}
    path = {name: str(tasks / f"{name}.py") for name in ("asked", "inner", "graded", "sub/far")}
    assert found["one"] == found["tagged"] == [path["asked"], path["inner"]]
    assert found["two"] == [path["graded"]]
    assert found["four"] == ["the installed module os.path"]
    assert found["all"] == [*map(path.get, ("asked", "graded", "inner", "sub/far")), "the evaluate library's theirs"]
    remark = TaskCatalogue(use(tasks, "all")).remark()
    assert remark is not None and remark.startswith(f"tasks run code: {path['asked']} (all), ")
    assert TaskCatalogue(use(tasks, "lists")).remark() is None


def test_code_is_said_before_it_runs(tasks: Path, cli: Cli, run_file: Write, tmp_path: Path) -> None:
    lists = tasks / "lists.yaml"
    lists.write_text(lists.read_text().replace('doc_to_text: "{{prompt}}"', "doc_to_text: !function utils.f"))
    (tasks / "utils.py").write_text("import sys; print('it ran', file=sys.stderr)\ndef f(doc): return doc['prompt']\n")
    fitness = {"include": [str(tasks)], "objectives": {"x": {"task": "lists"}}, "items": {"search": 8, "confirm": 8}}
    found = cli("plan", run_file(fitness=fitness))
    assert found.status == 0, found
    said = f"tasks run code: {tasks / 'utils.py'} (lists)"
    assert 0 < found.err.index(said) < found.err.index("it ran")
    assert found.err.count(said) == 1
    assert [line for line in found.out.splitlines() if line.startswith("code ")] == [
        f"code       tasks run {tasks / 'utils.py'}"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"doc_to_text": "{{ cycler.__init__.__globals__.os.system('touch RAN') }}"}, ["lists.yaml", "is unsafe"]),
        ({"doc_to_target": "{{ ''.__class__.__mro__ }}"}, ["lists.yaml", "is unsafe"]),
        ({"doc_to_text": "{{ nothing }}"}, ["lists.yaml", "'nothing' is undefined"]),
        ({"doc_to_text": "{{ prompt"}, ["lists.yaml", "TemplateSyntaxError"]),
        ({"doc_to_text": "!function ends.f"}, ["lists.yaml", "its code ends the process", "sys.exit(0)"]),
        ({"doc_to_text": "!function raises.f"}, ["lists.yaml", "GeneratorExit"]),
        ({"output_type": "singing"}, ["lists.yaml", "singing"]),
    ],
)
def test_a_task_that_cannot_be_loaded_is_named_with_its_file(
    change: dict[str, str], words: list[str], tasks: Path, tmp_path: Path
) -> None:
    (tasks / "ends.py").write_text("import sys; sys.exit(0)")
    (tasks / "raises.py").write_text("raise GeneratorExit")
    write(tasks, "lists", **{"task": "lists", **HEAD, **TEMPLATES, **change})
    with pytest.raises(SpecError) as refusal:
        open_banks(use(tasks))
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value) and not (tasks / "RAN").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: [", ["lists.yaml cannot be read as a task file", "line 2"]),
        ("task: lists\ninclude: nowhere.yaml\n", ["lists.yaml cannot be read", "nowhere.yaml"]),
        ("task: " + "[" * 200_000, ["lists.yaml", "nested deeper than 64"]),
        ("a: &a [1, 2]\nb: &b [*a, *a]\n" + "".join(f"c{i}: &b [*b, *b, *b, *b]\n" for i in range(12)), ["1,000,000"]),
        ("task: lists\noutput_type: a\ntask: other\n", ["lists.yaml", "task is written twice, in lines 1 and 3"]),
        ("task: \xff\n", ["lists.yaml cannot be read"]),
    ],
)
def test_a_broken_task_file_is_named(text: str, words: list[str], tasks: Path, cli: Cli, run_file: Write) -> None:
    (tasks / "lists.yaml").write_bytes(text.encode("latin-1"))
    fitness = {"include": [str(tasks)], "objectives": {"x": {"task": "lists"}}}
    refused(cli("plan", run_file(fitness=fitness)), *words)


@pytest.mark.parametrize("text", ["", "task: other\n", "- task: lists\n", "group: all\ntask: [lists]\n"])
def test_a_file_called_as_the_task_that_does_not_define_it_is_named(text: str, tasks: Path) -> None:
    (tasks / "lists.yaml").write_text(text)
    catalogue = TaskCatalogue(use(tasks))
    assert catalogue.remark(stock=False) == "tasks run code: what lm-eval's own tasks run (lists)"
    catalogue._stock_listed = True  # Which takes long.
    with pytest.raises(SpecError, match="there is no task 'lists'; .*lists.yaml does not define it; "):
        catalogue.load(use(tasks).uses()["lists"])


def test_two_files_that_define_one_task(tasks: Path) -> None:
    (tasks / "again.yaml").write_text((tasks / "lists.yaml").read_text())
    with pytest.raises(SpecError, match=r"'lists' is defined by .*again.yaml and by .*lists.yaml; rename one"):
        TaskCatalogue(use(tasks)).load(use(tasks).uses()["lists"])


def test_honest_templates_read_the_same_in_the_sandbox_and_lm_eval_keeps_its_own() -> None:
    doc = {"a": [1, 2], "b": "x\n", "c": {"k": "v"}}
    texts = ["{{a[1]}}{{c.k}} {{b}}\n", "{% for i in a %}{{loop.index}}{% endfor %}", "{{b|regex_replace('x', 'y')}}"]
    texts += ["{{a|map('string')|join('-')}}", "{{b.strip().upper()}}", "{{'%s' % b}}{{range(3)|list}}"]
    theirs = lm_eval.utils.env
    plain = [lm_eval.utils.apply_template(text, doc) for text in texts]
    with sandboxed():
        assert [lm_eval.utils.apply_template(text, doc) for text in texts] == plain
        with pytest.raises(jinja2.exceptions.SecurityError):
            lm_eval.utils.apply_template("{{ a.append(3) }}", doc)
    assert lm_eval.utils.env is theirs


def test_merged_keys_and_aliases_hide_no_code(tmp_path: Path) -> None:
    (tmp_path / "f.py").touch()
    (tmp_path / "base").write_text("doc_to_text: !function f.g\n")
    path = tmp_path / "t.yaml"
    path.write_text("metadata: &m {include: base, self: &s [*m, *s]}\n<<: *m\ntask: t\n")
    assert read_task_file(path).files == {tmp_path / "f.py"}
