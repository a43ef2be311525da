"""Many workers by a simulated clock: kept busy, no less is learnt from a candidate. `scripts/bench clock` does more."""

import pytest
from clock import POOLS, Pool, course, medians


def test_in_steady_state_eight_workers_have_no_time_to_wait() -> None:
    """Medians of three searches: .96 busy against .50, 25 units of time to the target against 72."""
    steady = medians([course("cma", "steady", POOLS[0], seed) for seed in range(3)])
    waiting = medians([course("cma", "generation", POOLS[0], seed) for seed in range(3)])
    assert steady.busy >= 0.95
    assert waiting.busy < 0.6
    assert steady.evaluations <= 1.2 * waiting.evaluations
    assert steady.time < 0.7 * waiting.time


@pytest.mark.parametrize("pool", [Pool(64, 128, 600), Pool(8, 16, 300)])
@pytest.mark.parametrize("kind", ["cma", "nsga2"])
def test_as_long_as_there_are_candidates_nobody_waits(kind: str, pool: Pool) -> None:
    """Not for the last of the design either."""
    assert course(kind, "steady", pool, 1).supplied >= 0.95  # type: ignore[arg-type]
