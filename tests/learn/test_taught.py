"""What lessons gave, item by item, and what is right of the items."""

import numpy as np

from evomerge.items import ItemTable, Pool, TaskItems
from evomerge.learn.losses import Right
from evomerge.learning.taught import answers_of, rights_of
from evomerge.trial import Learnt


def table(**golds: tuple[tuple[int, ...], ...]) -> ItemTable:
    tasks = {}
    for task, each in golds.items():
        ids = tuple(f"{task} {place}" for place in range(len(each)))
        pool = Pool(ids=ids, clusters=ids, golds=each)
        tasks[task] = TaskItems(search=pool, confirm=pool, metrics={"acc": True})
    return ItemTable(tasks=tasks)


def test_what_is_wanted_counts_instead_of_what_is_right() -> None:
    found = rights_of(
        table(labelled=((1,), (0, 2), (2,)), imitated=((0,), (0,)), answers=((),)),
        {"labelled": (0, 1), "imitated": (1,), "answers": (0,)},
        {"imitated": {0: (0.5, 0.5), 1: (0.2, 0.8)}},
    )
    assert found["labelled"] == {0: Right((1,), whole=True), 1: Right((0, 2), whole=True)}
    assert found["imitated"][1].form == "imitation"
    assert found["imitated"][1].targets == (0.2, 0.8)
    assert found["answers"][0].form == "whole"


def test_pieces_of_a_step_are_put_together_in_the_order_of_the_items() -> None:
    items = {"a": (7, 2, 5), "b": (1,)}
    slopes = {"a": np.arange(12, dtype=np.float32).reshape(6, 2), "b": np.full((3, 2), -1, dtype=np.float32)}
    first = Learnt({}, {}, {"a": ((-1.0, -2.0), (-3.0,))}, {"a": slopes["a"][:3]})
    second = Learnt(
        {}, {}, {"a": ((-4.0, -5.0, -6.0),), "b": ((-7.0, -8.0, -9.0),)}, {"a": slopes["a"][3:], "b": slopes["b"]}
    )
    found = answers_of(items, [first, second])
    assert list(found) == [("a", 7), ("a", 2), ("a", 5), ("b", 1)]
    assert found["a", 2].scores.tolist() == [-3.0]
    assert found["a", 2].slopes.tolist() == [[4, 5]]
    assert found["a", 5].slopes.tolist() == slopes["a"][3:].tolist()
    assert found["b", 1].scores.tolist() == [-7.0, -8.0, -9.0]
