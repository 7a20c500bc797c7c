"""Retrieval metrics of the field: R@K, mAP and mINP over a score matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CELLS = 16_000_000
"""Scores ranked at once; bounds memory to some 500 MB whatever the number of queries."""


@dataclass(frozen=True, slots=True)
class RankMetrics:
    """Fractions in [0, 1]: R@1, R@5, R@10, mean average precision, mean inverse negative penalty; and the
    number of queries they are the mean over."""

    r1: float
    r5: float
    r10: float
    mean_ap: float
    mean_inp: float
    queries: int


def rank_metrics(scores: NDArray[np.floating], query_pids: ArrayLike, gallery_pids: ArrayLike) -> RankMetrics:
    """Rank the gallery (N) for each query (Q) by `scores` (Q, N), higher is better.

    A gallery picture is correct when its pid equals the query's. Queries without any correct picture are left
    out of all means. Ties are ranked by gallery position. mINP is the share of correct pictures down to the
    last one found (Ye et al., arXiv 2001.04193). Raises ValueError on shapes that do not agree, on scores that
    are not finite, and when no query has a correct picture.
    """
    queries, gallery = np.asarray(query_pids), np.asarray(gallery_pids)
    if scores.shape != (len(queries), len(gallery)):
        raise ValueError(f"scores must be (queries, gallery) = {(len(queries), len(gallery))}, not {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: check the embeddings they come from")
    step = max(1, _CELLS // max(1, len(gallery)))
    parts = [
        _per_query(scores[start : start + step], queries[start : start + step], gallery)
        for start in range(0, len(queries), step)
    ]
    values = np.concatenate(parts)
    if not len(values):
        raise ValueError("no query has a correct picture in the gallery: check that both use the same pids")
    r1, r5, r10, mean_ap, mean_inp = (float(x) for x in values.mean(axis=0))
    return RankMetrics(r1, r5, r10, mean_ap, mean_inp, len(values))


def _per_query(
    scores: NDArray[np.floating], queries: NDArray[np.generic], gallery: NDArray[np.generic]
) -> NDArray[np.float64]:
    """(queries with a match, 5): R@1, R@5, R@10, AP, INP of each."""
    order = np.argsort(-scores, axis=1, kind="stable")
    correct = gallery[order] == queries[:, None]
    correct = correct[correct.any(axis=1)]
    if not len(correct):
        return np.empty((0, 5))
    first = correct.argmax(axis=1)
    last = correct.shape[1] - 1 - correct[:, ::-1].argmax(axis=1)
    matches = correct.sum(axis=1)
    precision = correct.cumsum(axis=1) / np.arange(1, correct.shape[1] + 1)
    ap = (precision * correct).sum(axis=1) / matches
    return np.stack([first < 1, first < 5, first < 10, ap, matches / (last + 1)], axis=1).astype(np.float64)
