"""Which items each step learns from: in a random order, none twice before the others had their turn."""

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.learn.tradeoff import Weights

STREAM = 7
"""Tells these random numbers from those of other parts of a search."""


class Lots:
    """Hands out items of tasks in a random order, another one each time all were handed out.

    `pools` are the places of the items of each task, `objectives` the tasks of each objective; no more are drawn at
    once than the smallest pool has. What comes next follows from `taken`, how many items of each task were passed.
    """

    def __init__(self, pools: Mapping[str, Sequence[int]], objectives: Sequence[Sequence[str]], seed: int) -> None:
        self._pools = {task: np.asarray(places) for task, places in pools.items()}
        self._objectives = objectives
        self._seed = seed
        self.taken = dict.fromkeys(pools, 0)

    def draw(self, count: int, weights: Weights) -> dict[str, tuple[int, ...]]:
        """So many items by task, of each objective in proportion to its weight: their summed loss is the weighted one.

        An objective of several tasks has them in turn.
        """
        found: dict[str, tuple[int, ...]] = {}
        for tasks, share in zip(self._objectives, self._shares(count, weights), strict=True):
            for place, task in enumerate(tasks):
                own = share // len(tasks) + (place < share % len(tasks))
                if own:
                    found[task] = (*found.get(task, ()), *self._next(task, own))
        return found

    def _shares(self, count: int, weights: Weights) -> list[int]:
        """Whole items of each objective, as near to its weight as can be."""
        exact = np.asarray(weights) * count
        shares = np.floor(exact).astype(int)
        order = np.argsort(-(exact - shares), kind="stable")
        shares[order[: count - shares.sum()]] += 1
        return [int(share) for share in shares]

    def _next(self, task: str, count: int) -> list[int]:
        pool = self._pools[task]
        turn, place = divmod(self.taken[task], len(pool))
        if place + count > len(pool):  # An item comes once in a draw: what is left of this turn is passed over.
            turn, place = turn + 1, 0
        self.taken[task] = turn * len(pool) + place + count
        index = list(self._pools).index(task)
        order = np.random.default_rng((self._seed, STREAM, index, turn)).permutation(len(pool))
        return [int(item) for item in pool[order[place : place + count]]]
