"""How long a search puts up with a cluster that is not there; `test_cluster` loses real ones."""

import time

import pytest

from evomerge.errors import SpecError
from evomerge.execute.ray.patience import MOST_LOSSES, MOST_STARTS, SECONDS_NAME, Patience


def test_it_is_not_started_again_for_ever() -> None:
    """A work that came back in between makes up for what was before."""
    for ours, most in ((True, MOST_STARTS), (False, MOST_LOSSES)):
        patience = Patience(ours=ours)
        assert not any(patience.loses() for _ in range(most))
        patience.is_rewarded()
        assert not any(patience.loses() for _ in range(most))
        assert "times in a row" in str(patience.loses())


def test_a_cluster_without_nodes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setenv(SECONDS_NAME, "60")

    def waits(seconds: float, *, alone: bool = True, unseen: float = 0.0) -> bool:
        now[0] += seconds
        return patience.waits(alone=alone, unseen=unseen) is not None

    patience = Patience(ours=False)
    assert [waits(1.0), waits(50.0), waits(20.0, alone=False), waits(50.0)] == [False] * 4
    assert not waits(300.0, unseen=300.0), "nobody has looked"
    assert waits(11.0)
    monkeypatch.setenv(SECONDS_NAME, "soon")
    with pytest.raises(SpecError, match="EVOMERGE_PATIENCE: 'soon'"):
        Patience(ours=False)
