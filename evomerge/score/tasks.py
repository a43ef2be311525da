"""lm-eval tasks: found by name, loaded once, with the marks they give per document made plain numbers."""

import contextlib
import difflib
import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from yaml import YAMLError

from evomerge.checkpoint import quiet
from evomerge.errors import EvomergeError, SpecError
from evomerge.fitness import Fitness, TaskUse
from evomerge.score.code import TaskFile, check_keys, reached, read_task_file, shown

FEWSHOT_SEED = 1234
"""lm-eval's own default, so that few-shot examples are those of its published numbers."""

# Metrics whose value per document is not a number: how it becomes one, and what aggregating would have done.
LIKELIHOODS = {"word_perplexity": 1.0, "byte_perplexity": 1.0, "bits_per_byte": math.log(2)}

MADE_UP: dict[str, Any] = {"loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0, "generate_until": "0"}
"""An answer to each type of request."""


@dataclass(frozen=True)
class Loaded:
    """A task as lm-eval has it: its leaves, the group that weighs them, and whether any leaf is lm-eval's own.

    `code` says what it runs beside its templates, with digests of the files.
    """

    leaves: dict[str, Task]
    group: Group | None
    stock: bool
    code: dict[str, str]


class TaskCatalogue:
    """The tasks of a fitness: those in its own folders first, lm-eval's stock (slow to list) only if needed.

    Raises:
        SpecError: one of these folders, or a YAML file in one, cannot be read.
    """

    def __init__(self, fitness: Fitness) -> None:
        self._include = [Path(folder) for folder in fitness.include]
        self._uses = fitness.uses()
        self._files = {path: file for folder in self._include for path, file in _read_folder(folder).items()}
        self._manager = TaskManager(include_path=[*self._include], include_defaults=False)
        self._stock_listed = False

    def remark(self, *, stock: bool = True) -> str | None:
        """What code the fitness's tasks run, in a sentence, before any of it does.

        Without `stock` it says of lm-eval's own tasks only that they are, which spares listing them.

        Raises:
            SpecError: there is no such task.
        """
        users: dict[str, dict[str, None]] = {}
        for use in self._uses.values():
            known = stock or use.task in self._manager.task_index
            for what in self.code(use.task) if known else ("what lm-eval's own tasks run",):
                users.setdefault(what, {})[use.task] = None
        told = [f"{what} ({', '.join(tasks)})" for what, tasks in users.items()]
        return f"tasks run code: {', '.join(told)}" if told else None

    def code(self, name: str) -> dict[str, str]:
        """What a task runs: a digest of each file, by its path; an empty one of what is no file.

        Raises:
            SpecError: there is no such task.
        """
        self._find(name)
        with code_of_others(f"fitness: task {name!r}", "read"):
            paths = [path for _, path in reached(name, self._manager.task_index)]
            read = [self._files.get(path) or read_task_file(path) for path in paths]
        files = {path for file in read for path in file.files}
        digests = {shown(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(files)}
        return digests | dict.fromkeys(sorted({other for file in read for other in file.others}), "")

    def load(self, use: TaskUse) -> Loaded:
        """The task, or a group with its leaves; set up for the use's few-shot and generation arguments.

        Raises:
            SpecError: no such task, or it cannot be loaded, or it needs images, audio or running code.
        """
        code = self.code(use.task)
        found = self._build(use.task, code)
        for name, task in found.leaves.items():
            _configure(name, task, use)
        return found

    def _find(self, name: str) -> None:
        """See that there is a task of this name, and one only."""
        if name not in self._manager.task_index and not self._stock_listed:
            self._manager = TaskManager(include_path=[*self._include])
            self._stock_listed = True
        if name not in self._manager.task_index:
            near = difflib.get_close_matches(name, self._manager.all_tasks, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists the stock ones"
            empty = next((f"{path} does not define it; " for path in self._files if path.stem == name), "")
            raise SpecError(f"fitness: there is no task {name!r}; {empty}{hint}")
        for member, path in reached(name, self._manager.task_index):
            self._refuse_twin(member, path)

    def _refuse_twin(self, name: str, path: Path) -> None:
        """See that no other file of a folder of tasks defines the same name, of which lm-eval takes the first."""
        roots = [root for root in self._include if root in path.parents]
        for other, file in self._files.items():
            if file.name == name and other != path and any(root in other.parents for root in roots):
                raise SpecError(f"fitness: task {name!r} is defined by {path} and by {other}; rename one of them")

    def _build(self, name: str, code: dict[str, str]) -> Loaded:
        home, file = self._home(name), self._manager.task_index[name].yaml_path
        called = f"fitness: task {name!r}" + (f" ({shown(file)})" if file is not None else "")
        # lm-eval reads a task's data files relative to the working directory; people mean the task's folder.
        with silent(), contextlib.chdir(home) if home else contextlib.nullcontext(), code_of_others(called, "loaded"):
            found = self._manager.load([name])
        leaves: dict[str, Task] = found["tasks"]
        return Loaded(leaves, found["groups"].get(name), any(self._stock(leaf, name) for leaf in leaves), code)

    def _home(self, name: str) -> Path | None:
        """The folder of the file of a task of one's own; of a tag, which has none, that of its first task's."""
        index = self._manager.task_index
        paths = [index[member].yaml_path for member in (name, *sorted(index[name].tags)) if member in index]
        first = next((path for path in paths if path is not None), None)
        return first.parent if first is not None and self._local(first) else None

    def _stock(self, leaf: str, name: str) -> bool:
        """Whether a leaf is lm-eval's own; one defined inside a group is whose the group is."""
        entry = self._manager.task_index.get(leaf) or self._manager.task_index[name]
        return entry.yaml_path is None or not self._local(entry.yaml_path)

    def _local(self, path: Path) -> bool:
        return any(folder.resolve() in path.resolve().parents for folder in self._include)


def _read_folder(folder: Path) -> dict[Path, TaskFile]:
    """Every YAML file that lm-eval would look at, which it would pass over without a word if it could not read it."""
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        what = "cannot be read" if folder.is_dir() else "is not a folder"
        raise SpecError(f"fitness.include: {folder} {what}; give a folder of lm-eval task files")
    found = {}
    for path in sorted(folder.glob("**/*.yaml")):
        try:
            found[path] = read_task_file(path)
            check_keys(path)
        except (OSError, ValueError, YAMLError) as error:
            raise SpecError(
                f"fitness.include: {path} cannot be read as a task file ({_line(error)}); mend it, or take it away"
            ) from None
    return found


@contextlib.contextmanager
def code_of_others(called: str, what: str, way_out: str = "") -> Iterator[None]:
    """Run what a task file or a data set brings along, which may raise anything, and may want to end the process.

    Raises:
        SpecError: it did.
    """
    try:
        yield
    except (KeyboardInterrupt, EvomergeError):
        raise
    except BaseException as error:  # noqa: BLE001  Anything a task's code, a data set or a template can raise.
        raise SpecError(f"{called} cannot be {what} ({_line(error)}){way_out}") from None


def _line(error: BaseException) -> str:
    """What was raised, in a line."""
    if isinstance(error, SystemExit):
        return f"its code ends the process: sys.exit({'' if error.code is None else error.code!r})"
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, OSError | ValueError | YAMLError) and text else f"{type(error).__name__}: {text}"


def _configure(name: str, task: Task, use: TaskUse) -> None:
    if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False):
        what = "runs generated code" if getattr(task, "UNSAFE_CODE", False) else "needs images or audio"
        raise SpecError(f"fitness: task {name!r} {what}, which evomerge does not do; choose another task")
    if use.generation is not None:
        if task.get_config("output_type") != "generate_until":
            raise SpecError(f"fitness: task {name!r} generates nothing; leave generation out")
        task.set_config("generation_kwargs", dict(use.generation), update=True)
    fixed = task.get_config("num_fewshot")
    if use.fewshot is not None and fixed == 0 and use.fewshot != 0:
        raise SpecError(f"fitness: task {name!r} is defined as zero-shot (num_fewshot: 0); leave fewshot out")
    if use.fewshot is not None:
        task.set_config("num_fewshot", use.fewshot)
    elif fixed is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(FEWSHOT_SEED)


def metrics_of(task: Task, doc: Mapping[str, Any]) -> dict[str, bool]:
    """The metrics that are one number per document, named as in a fitness file, with whether higher is better.

    They are found out on `doc`.

    Raises:
        SpecError: there are none, or a package they need is missing.
    """
    filters = [ensemble.name for ensemble in task._filters]
    better = task.higher_is_better()
    given = _given_metrics(task, doc)
    found = {
        metric_name(metric, filter_name, filters): bool(better.get(metric, True))
        for filter_name in filters
        for metric in task.aggregation()
        if metric in given
    }
    if not found:
        known = ", ".join(task.aggregation())
        raise SpecError(f"fitness: task {task.config.task!r} gives no metric per document, only {known} over all")
    return found


def _given_metrics(task: Task, doc: Mapping[str, Any]) -> set[str]:
    """The metrics that a document gets marks of, seen by grading it on answers that are made up."""
    try:
        rows = graded(task, doc, MADE_UP)[task._filters[0].name]
    except ImportError as error:
        raise SpecError(f"fitness: task {task.config.task!r} needs a package that is missing ({error})") from None
    except Exception:  # noqa: BLE001  A task's own code may take nothing but real answers; then all are tried.
        return set(task.aggregation())
    return {metric for metric, value in rows.items() if mark_of(metric, value) is not None}


def graded(task: Task, doc: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values of a document's metrics by filter, where each request got the answer that is made up for its type."""
    made = task.construct_requests(doc=doc, ctx="", metadata=(task.config.task, 0, 1))
    task._instances = made if isinstance(made, list) else [made]
    for place, instance in enumerate(task._instances):
        answer = answers[instance.request_type]
        # Options get likelihoods of their own: of equal ones the first would always be chosen.
        instance.resps = [(answer[0] * (place + 1), answer[1])] if isinstance(answer, tuple) else [answer]
    task.apply_filters()
    return {
        name: task.process_results(doc, [instance.filtered_resps[name] for instance in task._instances])
        for name in (ensemble.name for ensemble in task._filters)
    }


def metric_name(metric: str, filter_name: str, filters: Sequence[str]) -> str:
    """`acc`, or `exact_match,strict-match` where a task has several filters."""
    return metric if len(filters) == 1 else f"{metric},{filter_name}"


def mark_of(metric: str, value: Any) -> float | None:
    """A document's metric as one number, or None if it only means something for many documents together.

    Log-likelihoods become negative log-likelihoods, in nats per document (`perplexity`), per word, per byte, or
    bits per byte, so that lower is better as the metric's name says; `brier_score` is the squared distance from
    the truth.
    """
    if metric == "perplexity":
        return -float(value)
    if metric in LIKELIHOODS and isinstance(value, tuple):
        likelihood, size = value
        return -float(likelihood) / max(float(size), 1.0) / LIKELIHOODS[metric]
    if metric == "brier_score" and isinstance(value, tuple):
        gold, probabilities = value
        return float(sum((p - (i == gold)) ** 2 for i, p in enumerate(probabilities)))
    if isinstance(value, bool | int | float):
        return float(value)
    return float(value) if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep lm-eval's, datasets' and transformers' progress bars and remarks off the terminal for a while."""
    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()
