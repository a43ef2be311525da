"""The items of benchmark tasks: split into pools when a run is opened, weighed as the benchmark weighs them."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self, TypeAlias, TypeVar, assert_never, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from evomerge.values import Value

Split: TypeAlias = Literal["train", "validation", "test"]
PoolName: TypeAlias = Literal["search", "confirm", "report"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)
Cost: TypeAlias = Literal["layers", "parameters"]
COST = "(cost)"
"""What stands in marks where a task's name would, for what a model costs: one mark for each `Cost`."""


TEXT = "(text)"
"""What stands in draws and marks where a task's name would, for plain text that is to be foretold."""
TEXT_LOSS = "loss"
"""The metric of it: nats a token, whose exponential is the perplexity."""

_T = TypeVar("_T")


def _one_of(name: PoolName, search: _T, confirm: _T, report: _T) -> _T:
    match name:
        case "search":
            return search
        case "confirm":
            return confirm
        case "report":
            return report
        case _:
            assert_never(name)


class Pool(Value):
    """Items in a fixed order, and for each the cluster it shares its error with.

    `weights` sum to 1 and make of marks the benchmark's number; left out, they are equal. `strata` names the sub-task
    of each item, if there are several. `costs` are the tokens that a model reads and at most writes for each item,
    `requests` digests of what each item asks and what answers are compared with; left out where nobody counted. `cut`
    are the tokens that each item loses because the model's window is too small for them; left out if none loses any.
    `golds` are the right ones among each item's options, none where its scores are those of a reference answer; left
    out where the task gives no scores.
    """

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    weights: tuple[float, ...] = ()
    strata: tuple[str, ...] = ()
    costs: tuple[int, ...] = ()
    requests: tuple[str, ...] = ()
    cut: tuple[int, ...] = ()
    golds: tuple[tuple[int, ...], ...] = ()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        rows = {name: value for name, value in self if name != "ids"}
        for name, values in rows.items():
            if len(values) != len(self.ids) and (values or name == "clusters"):
                raise ValueError(f"{name} are of {len(values)} items, there are {len(self.ids)}")
        return self

    def shares(self, places: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The weight of each item, or of each one at `places`: (items,), sum 1."""
        weights = np.asarray(self.weights or (1.0,) * len(self.ids))
        kept = weights if places is None else weights[np.asarray(places, dtype=int)]
        shares: NDArray[np.float64] = kept / kept.sum()
        return shares


NOTHING = Pool(ids=(), clusters=())


class TaskItems(Value):
    """One task's items, split by hash, and its metrics with whether higher is better.

    `split` says which documents they are. `stock` tells lm-eval's own tasks from those of `include`, `benchmark` that
    the split is the one whose numbers people compare: what lm-eval evaluates on. `whole_weights` are the weights of an
    item by its sub-task where all pools are taken together; left out, they are equal. `code` says what code of its own
    the task runs, with digests of files, `grading` has digests of what a task file says of metrics and filters.
    `undefined` counts documents that are left out because their metric is undefined, whatever a model answers.
    """

    search: Pool
    confirm: Pool
    report: Pool = NOTHING
    metrics: dict[str, bool]
    split: Split | None = None
    stock: bool = False
    benchmark: bool = False
    whole_weights: dict[str, float] = Field(default_factory=dict)
    code: dict[str, str] = Field(default_factory=dict)
    grading: dict[str, str] = Field(default_factory=dict)
    undefined: int = 0

    def pool(self, name: PoolName) -> Pool:
        """The pool of that name; without items if there is none."""
        return _one_of(name, self.search, self.confirm, self.report)

    def whole(self) -> Pool:
        """All pools as one, in their order."""
        pools = [self.pool(name) for name in POOLS]
        strata = tuple(stratum for pool in pools for stratum in pool.strata)
        return Pool(
            ids=tuple(key for pool in pools for key in pool.ids),
            clusters=tuple(cluster for pool in pools for cluster in pool.clusters),
            weights=tuple(self.whole_weights[stratum] for stratum in strata) if self.whole_weights else (),
            strata=strata,
        )

    def remarks(self) -> list[str]:
        """What must be said of marks on these items: which prompts a model sees in part, what is left out."""
        said = []
        counts = [count for name in POOLS for count in self.pool(name).cut]
        if any(counts):
            total = sum(len(self.pool(name).ids) for name in POOLS)
            said.append(
                f"{sum(map(bool, counts))} of {total} items are longer than the model's window; at most {max(counts)}"
                " tokens are cut off their beginning, as lm-eval cuts them"
            )
        if self.undefined:
            said.append(f"{self.undefined} documents are left out, for which the metric is undefined (NaN)")
        return said

    def metric(self, name: str | None) -> str | None:
        """A metric as the task names it: its first if none is asked for, with its first filter if none is given."""
        if name is None or name in self.metrics:
            return name or next(iter(self.metrics), None)
        return next((known for known in self.metrics if known.split(",")[0] == name), None)


class TextItems(Value):
    """Pieces of plain text by digests of their tokens; `source` says whose text it is.

    Drift is reported on `confirm`; what learning must keep are those of `search`, of which it is judged by `held`.
    """

    source: str
    confirm: tuple[str, ...]
    search: tuple[str, ...] = ()
    held: tuple[str, ...] = ()

    def pool(self, name: PoolName) -> tuple[str, ...]:
        """The pieces of a pool; there are none to report on last."""
        return _one_of(name, self.search, self.confirm, ())


class ItemTable(Value):
    """All items of a fitness, by the names of `Fitness.uses`: fixed when a run is opened, kept with it.

    `costs` are those of one unchanged parent, there if the fitness asks for any: what a model's own are told in shares
    of. `text` is what drift is measured on; left out where it is not measured.
    """

    tasks: dict[str, TaskItems]
    costs: dict[Cost, float] = Field(default_factory=dict)
    text: TextItems | None = None

    def count(self, pool: PoolName, places: Mapping[str, Sequence[int]] | None = None) -> int:
        """How many items there are at these places, or in the whole pool, over all tasks."""
        return sum(map(len, self.drawn(pool, places).values()))

    def caveats(self) -> list[str]:
        """What must be said wherever a search's numbers are shown: which are no benchmark results, what was cut."""
        return [
            f"{name}: the search uses its {task.split} split, on which this benchmark is reported; the numbers of this"
            " run must not be reported as results on it"
            for name, task in self.tasks.items()
            if task.stock and task.benchmark
        ] + [f"{name}: {remark}" for name, task in self.tasks.items() for remark in task.remarks()]

    def items_of(self, pool: PoolName) -> dict[str, int]:
        """How many items of each task are in a pool; tasks without any are left out."""
        return {name: len(task.pool(pool).ids) for name, task in self.tasks.items() if task.pool(pool).ids}

    def changes_since(self, then: "ItemTable") -> str | None:
        """What decides a mark and is not as it was `then`, in words before `than`; None if marks can be compared.

        Tables of older versions have no digests; then only the items count.
        """
        if then.text is not None and self.text != then.text:
            return f"the text {then.text.source}, on which drift is measured, has other tokens"
        if list(self.tasks) != list(then.tasks):
            return f"the fitness has other tasks ({', '.join(self.tasks)})"
        found = (_changed(task, then.tasks[name]) for name, task in self.tasks.items())
        return next((f"task {name!r} {what}" for name, what in zip(self.tasks, found, strict=True) if what), None)

    def drawn(self, pool: PoolName, places: Mapping[str, Sequence[int]] | None = None) -> dict[str, list[str]]:
        """Item ids by task: the whole pool, or its items at the given places, pieces of text among them."""
        found = {}
        for name, ids in self._pools(pool, text=places is not None):
            wanted = range(len(ids)) if places is None else places.get(name, ())
            if wanted:
                found[name] = [ids[place] for place in wanted]
        return found

    def _pools(self, pool: PoolName, *, text: bool) -> list[tuple[str, tuple[str, ...]]]:
        pools = [(name, task.pool(pool).ids) for name, task in self.tasks.items()]
        return [*pools, (TEXT, self.text.pool(pool))] if text and self.text is not None else pools

    def held_by(self, pool: PoolName, task: str) -> int:
        """How many items of a task, or pieces of text, a pool has."""
        return len(dict(self._pools(pool, text=True)).get(task, ()))


def _changed(now: TaskItems, then: TaskItems) -> str | None:
    """What is another in one task, as what a sentence says of it."""
    if now.metrics != then.metrics or any(_items(now.pool(name)) != _items(then.pool(name)) for name in POOLS):
        return "has other items or metrics"
    if (files := _unlike(now.code, then.code)) and then.grading:
        return f"runs other code ({', '.join(files)})"
    if (keys := _unlike(now.grading, then.grading)) and then.grading:
        return f"is graded otherwise ({', '.join(keys)})"
    asked = [(name, *each) for name in POOLS for each in _asked(now.pool(name), then.pool(name))]
    others = [f"{pool} item {key}" for pool, key, new, old in asked if new != old]
    if not others:
        return None
    return (
        f"has other prompts, options, targets or settings for {len(others)} of {len(asked)} items ({others[0]} first)"
    )


def _items(pool: Pool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return pool.ids, pool.clusters


def _asked(now: Pool, then: Pool) -> list[tuple[str, str, str]]:
    """Items with digests of their requests; none where one side has none."""
    return list(zip(now.ids, now.requests, then.requests, strict=False))


def _unlike(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    return [key for key in sorted({*now, *then}) if now.get(key) != then.get(key)]
