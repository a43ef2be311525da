"""Genes of every kind, from the unit interval to their own scale and back."""

import pytest
from pydantic import ValidationError

from evomerge.space import Gene

GENES = (
    Gene(name="real", low=-0.5, high=1.5),
    Gene(name="steps", low=0.1, high=0.9, levels=16),
    Gene(name="layer", low=3, high=34, levels=31, kind="integer"),
    Gene(name="even", low=0, high=12, levels=6, kind="integer"),
    Gene(name="switch", low=0, high=1, levels=1, kind="binary"),
    Gene(name="parent", low=0, high=4, levels=4, kind="categorical"),
)
DISCRETE = [gene for gene in GENES if gene.discrete]


@pytest.mark.parametrize("gene", GENES, ids=lambda gene: gene.name)
def test_every_value_comes_back_from_its_unit(gene: Gene) -> None:
    for index in range(101):
        value = gene.value(index / 100)
        assert gene.value(gene.unit(value)) == value
        assert gene.value(gene.snapped(index / 100)) == value, "snapping does not change what a unit stands for"


@pytest.mark.parametrize("gene", DISCRETE, ids=lambda gene: gene.name)
def test_a_level_has_one_unit_and_a_whole_value(gene: Gene) -> None:
    assert gene.levels is not None
    units = {gene.snapped(index / 1000) for index in range(1001)}
    assert len(units) == gene.levels + 1
    assert all(gene.snapped(unit) == unit and gene.value(unit).is_integer() for unit in units)
    assert {gene.level(unit) for unit in units} == set(range(gene.levels + 1))


@pytest.mark.parametrize("gene", DISCRETE, ids=lambda gene: gene.name)
def test_thresholds_part_one_level_from_the_next(gene: Gene) -> None:
    for level, threshold in enumerate(gene.thresholds):
        assert gene.level(threshold - 1e-9) == level
        assert gene.level(threshold + 1e-9) == level + 1
    assert len(gene.thresholds) == gene.levels


def test_a_real_gene_with_steps_is_not_snapped() -> None:
    real = GENES[1]
    assert real.snapped(0.123) == 0.123
    assert real.thresholds == ()
    with pytest.raises(ValueError, match="no levels"):
        real.level(0.5)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"kind": "binary", "high": 2.0, "levels": 1}, "binary"),
        ({"kind": "binary"}, "binary"),
        ({"kind": "integer"}, "levels"),
        ({"kind": "categorical", "high": 3.0}, "levels"),
        ({"kind": "integer", "high": 3.0, "levels": 2}, "whole"),
        ({"kind": "integer", "low": 0.5, "high": 2.5, "levels": 2}, "whole"),
        ({"levels": 0}, "at least one"),
        ({"high": 0.0}, "empty"),
    ],
)
def test_a_gene_that_cannot_be_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Gene.model_validate({"name": "g", "low": 0.0, "high": 1.0, **wrong})
