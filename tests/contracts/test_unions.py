"""A union's new member is named wherever members are told apart: by the type checker, or by the suite of its kind."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest
from conftest import ROOT
from unions import kinds_of

from evomerge import arguments
from evomerge.events import Event
from evomerge.export import Format
from evomerge.fitness import Design, EstimatorKind
from evomerge.items import PoolName
from evomerge.recipe import Folder, Operator, Recipe
from evomerge.space import SpaceSpec
from evomerge.spec import ExecutorKind, ExecutorSpec, OptimizerSpec

SOURCES = sorted((ROOT / "evomerge").rglob("*.py"))
CLASS = '''class {name}(Tagged):
    """A member that nobody has thought of."""

    kind: Literal["{kind}"] = "{kind}"


{union}'''
CLASSES = {
    "ZzzOperator": ("recipe/operators.py", r"Operator: TypeAlias = Annotated\[[^,]+"),
    "ZzzOptimizer": ("spec/optimizers.py", r"OptimizerSpec: TypeAlias = Annotated\[[^,]+"),
    "ZzzExecutor": ("spec/executors.py", r"ExecutorSpec: TypeAlias = Annotated\[[^,]+"),
    "ZzzParent": (
        "recipe/recipe.py",
        r"Parent: TypeAlias = Annotated\[\n    Union\[Annotated\[Folder, Tag\(\"folder\"\)\]",
    ),
    "ZzzEvent": ("events.py", r"Event: TypeAlias = Annotated\[[^,]+"),
    "ZzzSpace": (
        "space/__init__.py",
        r"SpaceSpec: TypeAlias = Annotated\[\n    Annotated\[BlendSpec, Tag\(\"blend\"\)\]",
    ),
}
"""Unions of classes: where each is, and what its members end at."""
LITERALS = {
    "EstimatorKind": "fitness.py",
    "Design": "fitness.py",
    "GeneKind": "space/genes.py",
    "Sums": "recipe/operators.py",
    "Origin": "trial.py",
    "Purpose": "trial.py",
    "PoolName": "items.py",
    "Cost": "items.py",
    "ExecutorKind": "spec/executors.py",
    "Method": "export/mergekit.py",
    "Format": "export/folder.py",
    "Grain": "recipe/coefficients.py",
    "FineGrain": "recipe/coefficients.py",
}
"""Unions of words, and where each is."""


def patched(folder: Path) -> None:
    """Add a member to every union."""
    for name, (file, union) in CLASSES.items():
        path = folder / file
        text = path.read_text()
        (found,) = re.findall(union, text)
        also = f", {name}" if "Union[" in found else f" | {name}"
        made = CLASS.format(name=name, kind=name.lower(), union=found + also)
        text = text.replace(found, made)
        if "from evomerge.values import" in text and "Tagged" not in text.partition("class ")[0]:
            text = text.replace("from evomerge.values import ", "from evomerge.values import Tagged, ")
        if "Literal" not in text.partition("class ")[0]:
            text = text.replace("from typing import ", "from typing import Literal, ", 1)
        path.write_text(text)
    for name, file in LITERALS.items():
        path = folder / file
        text, count = re.subn(rf"(\n{name}: TypeAlias = Literal\[)", rf'\1"zzz {name}", ', path.read_text())
        assert count == 1, name
        path.write_text(text)


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Where the type checker names the new member of each union: files and functions."""
    folder = tmp_path_factory.mktemp("patched")
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(ROOT / "evomerge", folder / "evomerge", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if (ROOT / ".mypy_cache").is_dir():  # Libraries take most of the time.
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    patched(folder / "evomerge")
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--hide-error-context", "evomerge"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    found: dict[str, set[str]] = {name: set() for name in (*CLASSES, *LITERALS)}
    for file, line, text in re.findall(r"^(\S+?):(\d+): error: (.*)$", said, re.MULTILINE):
        for name in found:
            if re.search(rf"\b{name if name in CLASSES else f'zzz {name}'}\b", text):
                found[name].add(site(folder / file, int(line), folder))
    return found


def site(path: Path, line: int, root: Path = ROOT) -> str:
    """A line's file and the innermost function around it."""
    name = "-"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0):
            name = node.name
    return f"{path.relative_to(root / 'evomerge')}: {name}"


def members(union: object) -> set[str]:
    """Names of the classes of a union, and of those between them and `Tagged`."""
    found = {part for part in get_args(union) if isinstance(part, type)}
    bases = {base.__name__ for each in found for base in each.__mro__}
    nested = (members(part) for part in get_args(union) if not isinstance(part, type))
    return (bases - {"Tagged", "Value", "BaseModel", "object"}).union(*nested)


UNIONS = {
    "ZzzOperator": members(Operator),
    "ZzzOptimizer": members(OptimizerSpec),
    "ZzzExecutor": members(ExecutorSpec),
    "ZzzSpace": members(SpaceSpec),
    "ZzzEvent": members(Event) - {"Stamped"},
    "ZzzParent": {Folder.__name__, Recipe.__name__},
}
REASONS = {
    "assemble/experts.py: with_recipes": "of an expert, which is a source or a recipe, not a parent",
    "checkpoint/parents.py: open_parents": "of an expert",
    "recipe/recipe.py: walked": "of an expert",
    "export/card.py: _front_matter": "whatever is no folder has no name on the hub",
    "export/adapter.py: write_adapter": "a base with a checkpoint is a folder",
    "spec/run.py: _form": "of an expert",
    "recipe/recipe.py: _kind": "reads a parent that says no kind; what is new has to say one",
    "checkpoint/parents.py: _parents": "whatever is no recipe has to have been opened as a checkpoint",
    "assemble/start.py: _place": "whatever is no folder has no place",
    "export/card.py: _everything": "whatever is no recipe is made of nothing else",
    "export/card.py: _summary": "of recipes alone",
    "export/to_mergekit.py: _slerp_shares": "whatever is no slerp has to be a copy, or is refused",
    "space/blend.py: _slerp_t": "whatever is no slerp has to be a copy, or is refused",
    "results/reading.py: read_into": "marks are in evaluations alone",
    "assemble/folders.py: create": "of an expert",
    "export/folder.py: write_run": "of an expert",
    "store/side_files.py: placed_among": "of an expert",
    "space/tensor.py: names_for": "of spaces that have no genes by tensor none needs their names",
    "store/side_files.py: check": "asks for one event",
    "store/run.py: _first": "a journal begins with one event",
    "results/state.py: _pass": "a process begins with one event",
    "results/stopping.py: was_cut_behind_a_telling": "asks for one event",
    "session.py: collect": "of an executor's news",
    "session.py: _with_backlog": "of an executor's news",
    "results/state.py: _apply_to_process": "of fewer events, which whoever calls it has named",
    "results/state.py: _apply_to_search": "of fewer events, which whoever calls it has named",
    "space/joint.py: route_space": "of fewer spaces, which whoever calls it has named",
    "space/joint.py: _towards_merged": "of fewer spaces",
    "study.py: _replay": "the optimiser knows of nothing else",
}
"""Places that tell members of a union apart and need not know of a new one."""


def places(names: set[str]) -> Iterator[str]:
    """Functions that match on these classes or ask for instances of them."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.MatchClass(cls=ast.Name(id=name)) if name in names:
                    yield site(path, node.lineno)
                case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
                    if any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(kinds)):
                        yield site(path, node.lineno)
                case _:
                    pass


@pytest.mark.parametrize("name", UNIONS)
def test_wherever_classes_are_told_apart_a_new_one_is_named(name: str, complaints: dict[str, set[str]]) -> None:
    found = set(places(UNIONS[name]))
    assert found
    assert found - set(REASONS) - complaints[name] == set()


SITES = {
    "EstimatorKind": {
        "estimate/judge.py: _by_kind", "fitness.py: needs_chance", "fitness.py: plain_kind",
        "fitness.py: suited_design", "fitness.py: takes_any_range",
    },
    "Design": {
        "fitness.py: by_choice", "fitness.py: needs_calibration", "schedule/draws.py: _sample",
        "terminal/preflight.py: _how",
    },
    "GeneKind": {
        "optimize/neighbours.py: _changes", "space/genes.py: discrete", "space/genes.py: ordered",
        "terminal/preflight.py: _range_of",
    },
    "Sums": {"space/span.py: _is_sum"},
    "Origin": {"trial.py: of_optimizer"},
    "Purpose": {"terminal/standing.py: phase_of"},
    "PoolName": {"items.py: _one_of"},
    "Cost": {"checkpoint/size.py: _cost"},
    "ExecutorKind": {"assemble/means.py: of", "results/process.py: held"},
    "Method": {
        "export/from_mergekit.py: _operator", "export/from_mergekit.py: _shared", "export/mergekit.py: based",
        "export/mergekit.py: read_by",
    },
    "Format": {"export/folder.py: _parts"},
    "Grain": {"recipe/coefficients.py: count_of"},
    "FineGrain": {"materialize/merger.py: _spread"},
}  # fmt: skip


@pytest.mark.parametrize("name", LITERALS)
def test_wherever_words_are_told_apart_a_new_one_is_named(name: str, complaints: dict[str, set[str]]) -> None:
    assert SITES[name] - complaints[name] == set()


def test_every_match_ends_in_assert_never_or_a_raise() -> None:
    left = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Match):
                last = node.cases[-1]
                ends = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
                closed = any(isinstance(n, ast.Raise) or getattr(n, "id", "") == "assert_never" for n in ast.walk(last))
                if not (ends and closed):
                    left.append(site(path, node.lineno))
    assert left == []


BY_NAME = {
    "estimate/judge.py: _pairs": "what gp-IRT is corrected by; blend, the other one that is, is corrected by the rest",
    "space/genes.py: _checked": "what binary means",
    "spec/document.py: _key": "of what YAML takes a text for",
    "spec/document.py: _read_as": "of what YAML takes a text for",
    "score/responses.py: answer": "of lm-eval's requests, each of which has a loop of its own",
}
"""Functions that ask for a kind by name."""


def test_nobody_asks_for_a_kind_by_name() -> None:
    """What members have in common they say themselves: nobody has a list of those that do."""
    asked = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Compare(left=ast.Attribute(attr="kind") | ast.Name(id="kind"), comparators=[right]):
                    if any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in ast.walk(right)):
                        asked.add(site(path, node.lineno))
                case _:
                    pass
    assert asked - set(BY_NAME) == set()


@pytest.mark.parametrize(
    ("words", "union"),
    [
        (arguments.Kind, EstimatorKind),
        (arguments.What, Literal[*get_args(Format), "adapter"]),
        (arguments.Where, ExecutorKind),
    ],
)
def test_a_command_line_may_say_what_a_run_file_may(words: type[arguments.Kind], union: object) -> None:
    assert [word.value for word in words] == list(get_args(union))


def test_items_to_score_on_are_all_or_those_of_a_pool() -> None:
    assert [pool.value for pool in arguments.Pool] == ["all", *get_args(PoolName)]


def test_executors_are_those_that_a_run_may_go_on_by() -> None:
    assert kinds_of(ExecutorSpec) == list(get_args(ExecutorKind))


@pytest.mark.parametrize(
    "kind",
    [
        *kinds_of(SpaceSpec),
        *kinds_of(OptimizerSpec),
        *kinds_of(ExecutorSpec),
        *get_args(EstimatorKind),
        *get_args(Design),
    ],
)
def test_the_run_files_page_names_it(kind: str) -> None:
    assert re.search(rf"`{kind}`|\b{kind}:|kind: {kind}\b|executor: {kind}\b", (ROOT / "docs/run-file.md").read_text())
