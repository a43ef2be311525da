"""Code that task files run, found by reading them; nothing of it is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.api.metrics
import lm_eval.tasks
import yaml
from lm_eval.api.registry import metric_registry

from evomerge.limits import FILE_BYTES, NESTING

FUNCTION = "!function"
MOST = 1_000_000
"""Values of one file, with aliases written out."""
STOCK = Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True)
class TaskFile:
    """What one task file, with those that it includes, runs: Python files, and names of other things."""

    files: frozenset[Path]
    others: frozenset[str]
    name: str | None
    """What it defines: a task or a group; None if it is only included, or no task file at all."""


def read_task_file(path: Path) -> TaskFile:
    """What a task file runs.

    Raises:
        ValueError, OSError, yaml.YAMLError: it, or one that it includes, cannot be read.
    """
    files: set[Path] = set()
    others: set[str] = set()
    name = None
    todo, seen = [path.resolve()], set()
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        root = _nodes(here)
        name = name or _name(root)
        for module in (function.rpartition(".")[0] for function in _functions(root)):
            file = (here.parent / f"{module.replace('.', '/')}.py").resolve()
            if file.exists():
                files.add(file)
            else:
                others.add(f"the installed module {module}")
        others |= {f"the evaluate library's {metric}" for metric in _loaded_metrics(root)}
        todo += [(here.parent / included).resolve() for included in _texts(_value(root, "include"))]
    return TaskFile(frozenset(files), frozenset(others), name)


def shown(path: Path) -> str:
    """A file's path; of lm-eval's own from its package on, wherever it is installed."""
    return f"lm_eval/tasks/{path.relative_to(STOCK).as_posix()}" if STOCK in path.parents else str(path)


def reached(name: str, index: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The task of this name, the members of a group or a tag, and theirs: each once, with its file."""
    todo, seen = [name], set()
    while todo:
        entry = index.get(here := todo.pop())
        if entry is None or here in seen:
            continue
        seen.add(here)
        if entry.yaml_path is not None:
            yield here, entry.yaml_path
            todo += _members(entry.cfg or {})
        else:
            todo += sorted(entry.tags)


def _members(plain: Mapping[str, Any]) -> list[str]:
    """Names in the list of a group, and in those of groups that are written out in it."""
    listed = plain.get("task")
    found = []
    for member in listed if isinstance(listed, list) else ():
        if isinstance(member, str):
            found.append(member)
        elif isinstance(member, dict):
            found += [name for key in ("group", "task") if isinstance(name := member.get(key), str)]
            found += _members(member)
    return found


def _nodes(path: Path) -> yaml.Node | None:
    """A YAML file as it is written, without making anything of it."""
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"it is larger than {FILE_BYTES >> 20} MiB")
    text = path.read_bytes()
    _check_size(text)
    return yaml.compose(text, Loader=yaml.CSafeLoader)


def _check_size(text: bytes) -> None:
    """See that a text is flat, and small with its aliases written out: lm-eval reads both without any bound.

    Brackets within brackets within brackets, some 100,000 times, end the process.
    """
    sizes, anchors, known = [0], [], {}
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            known[anchors.pop()] = size = sizes.pop()
            sizes[-1] += size
        elif isinstance(event, yaml.NodeEvent):
            sizes[-1] += known.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
        if len(sizes) > NESTING or sizes[-1] > MOST:
            raise ValueError(
                f"it is nested deeper than {NESTING}"
                if len(sizes) > NESTING
                else f"it holds more than {MOST:,} values once its aliases are written out"
            )


def check_keys(path: Path) -> None:
    """See that no key of a task file stands there twice, of which lm-eval would take the last.

    Raises:
        ValueError: one does.
    """
    for node in _all(_nodes(path)):
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if lines.setdefault(str(key.value), line) != line:
                raise ValueError(f"{key.value} is written twice, in lines {lines[str(key.value)]} and {line}")


def _functions(root: yaml.Node | None) -> Iterator[str]:
    """What stands behind `!function`, wherever that is."""
    return (str(node.value) for node in _all(root) if node.tag == FUNCTION)


def _all(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node of a file, each once."""
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen:  # An alias is the node itself again.
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            todo += [each for pair in node.value for each in pair]


def _loaded_metrics(root: yaml.Node | None) -> list[str]:
    """Metrics that are scripts of the evaluate library: those that say so, and those that lm-eval does not know."""
    if _value(root, "process_results") is not None:
        return []
    rules = _value(root, "metric_list")
    found = []
    for rule in rules.value if isinstance(rules, yaml.SequenceNode) else ():
        metric, asked = _value(rule, "metric"), _value(rule, "hf_evaluate")
        if isinstance(metric, yaml.ScalarNode) and metric.tag != FUNCTION:
            known = metric.value in metric_registry and (asked is None or asked.value.lower() != "true")
            found += [] if known else [metric.value]
    return found


def _name(root: yaml.Node | None) -> str | None:
    for key in ("group", "task"):
        if isinstance(node := _value(root, key), yaml.ScalarNode):
            return str(node.value)
    return None


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """What a key says, by itself or by a mapping that is merged in."""
    pairs = list(node.value) if isinstance(node, yaml.MappingNode) else []
    for name, value in list(pairs):
        if name.value == "<<":
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            pairs += [pair for each in merged if isinstance(each, yaml.MappingNode) for pair in each.value]
    return next((value for name, value in pairs if name.value == key), None)


def _texts(node: yaml.Node | None) -> list[str]:
    if isinstance(node, yaml.SequenceNode):
        return [str(each.value) for each in node.value]
    return [] if node is None else [str(node.value)]
