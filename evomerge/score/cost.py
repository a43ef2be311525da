"""What items cost a model: tokens to read and at most to write, and tokens that its window is too small for."""

from collections.abc import Mapping, Sequence

from lm_eval.api.instance import Instance

from evomerge.items import POOLS, Pool, TaskItems
from evomerge.score.encoding import Encoded

Asked = tuple[Instance, Encoded]
"""A request and its tokens."""


def with_costs(table: TaskItems, costs: Mapping[str, int], cuts: Mapping[str, int]) -> TaskItems:
    """The table with the tokens of every item, and how many are cut off where any are; see `cost_of` and `cut_of`."""
    pools: dict[str, Pool] = {}
    for name in POOLS:
        pool = table.pool(name)
        cut = tuple(cuts[item] for item in pool.ids)
        counted = {"costs": tuple(costs[item] for item in pool.ids), "cut": cut if any(cut) else ()}
        pools[name] = pool.model_copy(update=counted)
    return table.model_copy(update=pools)


def cost_of(asked: Sequence[Asked]) -> int:
    """Tokens of an item's requests: each distinct context once, every continuation, and all that may be generated."""
    read = {request.context for _, found in asked for request in found.requests}
    written = sum(len(request.continuation) for _, found in asked for request in found.requests)
    prompts = [(len(found.prompt.tokens), found, i.repeats or 1) for i, found in asked if found.prompt is not None]
    return sum(map(len, read)) + written + sum(length + found.written * n for length, found, n in prompts)


def cut_of(asked: Sequence[Asked]) -> int:
    """Most tokens that one of an item's requests loses."""
    return max((found.cut for _, found in asked), default=0)
