"""Who beats whom in several objectives."""

import numpy as np

from evomerge.estimate.evidence import Floats, Ints


def beaten(points: Floats) -> Ints:
    """How many others are at least as good in everything and better in something (points,); 0 is the front."""
    no_worse = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray((no_worse & better).sum(axis=0))
