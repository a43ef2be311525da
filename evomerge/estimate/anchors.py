"""A few items that stand for all: each for those that models get right and wrong together with it."""

import numpy as np

from evomerge.estimate.evidence import Floats, Ints

STARTS = 5
"""Of k-means, the best of which counts; as the authors of tinyBenchmarks do."""


def anchors(features: Floats, count: int, weights: Floats, seed: int) -> tuple[Ints, Floats]:
    """Places of at most `count` items, ascending, and how much each stands for; the masses sum to 1.

    `features` (items, d) are what items are alike in: the marks of many models, or slopes and offsets. `weights`
    (items,) are the items' own in the mean that is wanted. An anchor is the item nearest to the centre of its cluster
    (Maia Polo et al. 2024); it is sought within the cluster, so no two clusters share one.

    Raises:
        ValueError: `count` is less than 1.
    """
    from sklearn.cluster import KMeans

    if count < 1:
        raise ValueError(f"there is at least one anchor, not {count}")
    weights = weights / weights.sum()
    if count >= len(features):
        return np.arange(len(features)), weights
    clusters = KMeans(count, n_init=STARTS, random_state=seed)
    clusters.fit(_apart(features, seed), sample_weight=weights)
    places, masses = [], []
    for label in np.unique(clusters.labels_):
        members = np.flatnonzero(clusters.labels_ == label)
        away = ((features[members] - clusters.cluster_centers_[label]) ** 2).sum(axis=1)
        places.append(members[np.argmin(away)])
        masses.append(weights[members].sum())
    order = np.argsort(places)
    return np.array(places, np.int64)[order], np.array(masses)[order]


def _apart(features: Floats, seed: int) -> Floats:
    """The features with a trace of noise: of items that no model tells apart, k-means could not make clusters."""
    noise = np.random.default_rng(seed).normal(size=features.shape)
    apart: Floats = features + 1e-6 * max(float(np.ptp(features)), 1e-6) * noise
    return apart
