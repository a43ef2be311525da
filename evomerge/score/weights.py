"""What each document counts for in a benchmark's number, as lm-eval's groups define it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from lm_eval.api.group import Group
from lm_eval.api.task import Task


def weights_of(leaves: Sequence[str], group: Group | None, metric: str | None) -> tuple[float, ...]:
    """The weight of each item by its sub-task, sum 1; none where all items count the same.

    Only the sub-tasks that have items here count, each by as many as it has.
    """
    counts = Counter(leaves)
    if group is None:
        shares = dict.fromkeys(counts, 1 / len(counts)) if len(counts) > 1 else None
    else:
        shares = None if _by_size(group, metric) else _shares(group, metric, counts)
    return () if shares is None else tuple(shares[leaf] / counts[leaf] for leaf in leaves)


def _by_size(group: Group, metric: str | None) -> bool | None:
    """Whether the group's number is the mean over documents (else over leaves), None if it defines no number.

    A metric that the group does not aggregate is weighed like the first one that it does.
    """
    rules = group.aggregate_metric_list or []
    named = [rule for rule in rules if metric is not None and rule.metric == metric.split(",")[0]]
    return next((bool(rule.weight_by_size) for rule in (*named, *rules)), None)


def _shares(node: Group | Task, metric: str | None, counts: Mapping[str, int]) -> dict[str, float]:
    """What each leaf below a node counts for, sum 1; none if no leaf has items.

    lm-eval's aggregation is over leaves, however deep they lie; where a group defines none it is the mean of its
    children, sub-groups counting as one.
    """
    if isinstance(node, Task):
        return {node.task_name: 1.0} if counts.get(node.task_name) else {}
    by_size = _by_size(node, metric)
    if by_size is None:
        parts = [part for child in node if (part := _shares(child, metric, counts))]
    else:
        leaves = [task.task_name for task in node.get_all_tasks() if counts.get(task.task_name)]
        parts = [{leaf: float(counts[leaf]) if by_size else 1.0} for leaf in leaves]
    total = sum(sum(part.values()) for part in parts)
    shares: Counter[str] = Counter()
    for part in parts:
        shares.update({leaf: share / total for leaf, share in part.items()})
    return dict(shares)
