"""p-IRT, gp-IRT, mp-IRT and gmp-IRT against outputs of the authors' own code, recorded once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.estimate.evidence import Evidence, Floats
from evomerge.estimate.irt import ItemParameters
from evomerge.estimate.published import UNDETERMINED, gmp_irt, gp_irt, mp_irt, p_irt

RECORDED = json.loads((Path(__file__).parent / "data/oracle_reference_outputs.json").read_text())
CLOSE = 1e-4
"""What their optimiser's tolerance leaves open."""


def scenario(bench: dict[str, Any], name: str) -> tuple[Floats, ItemParameters, list[int]]:
    """Weights of one scenario's items, their parameters, and where among all items they are."""
    parts = bench["sub"][name].values()
    where = [place for part in parts for place in part]
    weights = np.concatenate([np.full(len(part), 1 / (len(parts) * len(part))) for part in parts])
    items = ItemParameters(np.array(bench["A"]).T[where], RECORDED["D"] * np.array(bench["B"])[where])
    return weights, items, where


def answered(bench: dict[str, Any], case: dict[str, Any], name: str) -> tuple[Evidence, ItemParameters, float]:
    weights, items, where = scenario(bench, name)
    seen = [place for place in bench["seen"] if place in where]
    evidence = Evidence(
        weights=weights,
        places=np.array([where.index(place) for place in seen]),
        marks=np.array(case["y"]),
        probabilities=np.full(len(seen), len(seen) / len(where)),
        masses=np.array(bench["weights"][name]),
    )
    return evidence, items, bench["lambdas"][name]


CASES = [
    pytest.param(bench, case, name, id=f"{bench}-{i}-{name}")
    for bench in ("lb", "mmlu")
    for i, case in enumerate(RECORDED[bench]["cases"])
    for name in case["expected"]
]


@pytest.mark.parametrize(("bench", "case", "name"), CASES)
def test_tiny_benchmarks(bench: str, case: dict[str, Any], name: str) -> None:
    evidence, items, raw = answered(RECORDED[bench], case, name)
    found, blend = p_irt(evidence, items), gp_irt(evidence, items, raw=raw)
    expected = case["expected"][name]
    assert blend.diagnostics["raw"] == pytest.approx(expected["irt"], abs=1e-9)
    if case["separable_mle_diverges"]:
        assert UNDETERMINED in found.notes
        assert 0 < found.value < 1
        return
    assert found.notes == ()
    assert found.value == pytest.approx(expected["pirt"], abs=CLOSE)
    assert blend.value == pytest.approx(expected["gpirt"], abs=CLOSE)


@pytest.mark.parametrize("case", RECORDED["merge"], ids=range(len(RECORDED["merge"])))
def test_merge3(case: dict[str, Any]) -> None:
    weights, items, _ = scenario(RECORDED["lb"], case["bench"])
    places = np.array(case["local_items"])
    evidence = Evidence(
        weights=weights,
        places=places,
        marks=np.array(case["y"]),
        probabilities=np.full(len(places), len(places) / len(weights)),
        masses=np.array(case["weights"]),
    )
    parents = np.array(case["thetas"])
    found, blend = mp_irt(evidence, items, parents), gmp_irt(evidence, items, parents)
    assert blend.diagnostics["raw"] == pytest.approx(case["expected"]["weighted_avg"], abs=1e-9)
    assert [found.diagnostics[f"lambda {i}"] for i in (1, 2)] == pytest.approx(case["lambda"], abs=2e-3)
    assert found.value == pytest.approx(case["expected"]["mpirt"], abs=CLOSE)
    assert blend.value == pytest.approx(case["expected"]["gmpirt"], abs=CLOSE)
