"""Items: identified by content, split by hash, groups kept together, the order of documents of no account."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import SpecError
from evomerge.fitness import Items
from evomerge.score.bank import Item, split_items
from evomerge.score.tasks import mark_of


def items(clusters: list[int]) -> list[Item]:
    return [Item(f"i{n}", f"c{cluster}", "t", n, {}) for n, cluster in enumerate(clusters)]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 30), min_size=30, max_size=90), st.randoms())
def test_no_cluster_is_on_both_sides_and_order_does_not_matter(clusters: list[int], rng: random.Random) -> None:
    every = items(clusters)
    wanted = Items(search=8, confirm=8, report=5)
    try:
        sides = split_items("t", every, wanted)
    except SpecError:
        assert max(clusters.count(c) for c in set(clusters)) > 3 or len(set(clusters)) < 8
        return
    assert [len(side) for side in sides] == [8, 8, 5]
    search, confirm, report = ({item.cluster for item in side} for side in sides)
    assert not search & confirm | search & report | confirm & report
    groups: dict[str, list[Item]] = {}
    for item in every:
        groups.setdefault(item.cluster, []).append(item)
    order = list(groups.values())
    rng.shuffle(order)
    again = split_items("t", [item for group in order for item in group], wanted)
    assert [[i.id for i in side] for side in again] == [[i.id for i in side] for side in sides]


def test_confirm_items_do_not_depend_on_how_many_are_searched_on() -> None:
    every = items(list(range(100)))
    sides = [split_items("t", every, Items(search=size, confirm=30)) for size in (5, 20, 60)]
    assert sides[0].confirm == sides[1].confirm == sides[2].confirm
    assert sides[2].search[:20] == sides[1].search
    more = split_items("t", every, Items(search=20, confirm=30, report=40))
    assert (more.search, more.confirm) == (sides[1].search, sides[1].confirm), "report items are taken from the rest"
    assert split_items("t", every, Items(search=20, confirm=50)).confirm == [*more.confirm, *more.report[:20]]


def test_numbers_left_out_fit_the_task_and_numbers_given_are_insisted_on() -> None:
    for count, asked, sizes in (
        (40, Items(), [20, 20, 0]),
        (40, Items(report=5), [20, 15, 5]),
        (5000, Items(), [128, 512, 0]),
    ):
        assert [len(side) for side in split_items("t", items(list(range(count))), asked)] == sizes
    with pytest.raises(SpecError, match="40 documents"):
        split_items("t", items(list(range(40))), Items(search=30, confirm=20))
    with pytest.raises(SpecError, match="40 documents, 20 search, 15 confirm and 10 report are 45; lower one of them"):
        split_items("t", items(list(range(40))), Items(search=20, confirm=15, report=10))


@pytest.mark.parametrize(
    ("metric", "value", "mark"),
    [
        ("acc", True, 1.0),
        ("exact_match", 1, 1.0),
        ("f1", 0.25, 0.25),
        ("perplexity", -3.5, 3.5),
        ("word_perplexity", (-6.0, 3), 2.0),
        ("byte_perplexity", (-6.0, 12), 0.5),
        ("bits_per_byte", (-6.931471805599453, 10), 1.0),
        ("brier_score", (1, [0.2, 0.7, 0.1]), 0.14),
        ("f1", (1, 0), None),
        ("mcc", (1, 0), None),
        ("likelihood", (0, [1.0]), None),
    ],
)
def test_marks_of_documents(metric: str, value: Any, mark: float | None) -> None:
    assert mark_of(metric, value) == (pytest.approx(mark) if mark is not None else None)
