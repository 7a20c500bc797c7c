"""Retrieval metrics of the field: R@K, mAP and mINP over a score matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CELLS = 16_000_000
"""Scores ranked at once; bounds memory to some 500 MB whatever the number of queries."""

_Floats = NDArray[np.floating]


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


def rank_metrics(scores: _Floats, query_pids: ArrayLike, gallery_pids: ArrayLike) -> RankMetrics:
    """Rank the gallery (N) for each query (Q) by `scores` (Q, N), higher is better.

    A gallery picture is correct when its pid equals the query's. Queries without any correct picture are left
    out of all means. Ties are ranked by gallery position. mINP is the share of correct pictures down to the
    last one found (Ye et al., arXiv 2001.04193). Raises ValueError on shapes that do not agree, on scores that
    are not finite, and when no query has a correct picture.
    """
    queries, gallery = np.asarray(query_pids), np.asarray(gallery_pids)
    if scores.shape != (len(queries), len(gallery)):
        raise ValueError(f"scores must be (queries, gallery) = {(len(queries), len(gallery))}, not {scores.shape}")
    return _in_chunks(lambda rows: scores[rows], queries, gallery)


def rank_metrics_of(queries: _Floats, gallery: _Floats, query_pids: ArrayLike, gallery_pids: ArrayLike) -> RankMetrics:
    """`rank_metrics` of unit rows (Q, E) and (N, E), scored chunk by chunk: never all Q x N scores at once."""
    shapes = (len(np.asarray(query_pids)), len(np.asarray(gallery_pids)))
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"embeddings must be (queries, E) and (gallery, E), not {queries.shape} and {gallery.shape}")
    if (len(queries), len(gallery)) != shapes:
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery rows came with {shapes} pids")
    return _in_chunks(lambda rows: queries[rows] @ gallery.T, np.asarray(query_pids), np.asarray(gallery_pids))


def _in_chunks(
    score: Callable[[slice], _Floats], queries: NDArray[np.generic], gallery: NDArray[np.generic]
) -> RankMetrics:
    """Means over all queries; `score` gives the scores (rows, N) of some of them."""
    _, codes = np.unique(np.concatenate([queries, gallery]), return_inverse=True)
    wanted, held = codes[: len(queries)], codes[len(queries) :]
    by_person = np.argsort(held, kind="stable")
    starts, ends = (np.searchsorted(held[by_person], wanted, side) for side in ("left", "right"))
    step = max(1, CELLS // max(1, len(gallery)))
    values: list[tuple[float, ...]] = []
    for first in range(0, len(queries), step):
        scores = score(slice(first, first + step))
        if not np.isfinite(scores).all():
            raise ValueError("scores hold NaN or infinity: check the embeddings they come from")
        ordered = np.sort(scores, axis=1)
        for row, (start, end) in enumerate(zip(starts[first : first + step], ends[first : first + step], strict=True)):
            if start < end:
                values.append(_values(_places(scores[row], ordered[row], by_person[start:end])))
    if not values:
        raise ValueError("no query has a correct picture in the gallery: check that both use the same pids")
    r1, r5, r10, mean_ap, mean_inp = (float(x) for x in np.array(values).mean(axis=0))
    return RankMetrics(r1, r5, r10, mean_ap, mean_inp, len(values))


def _places(scores: _Floats, ordered: _Floats, correct: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the places, from 1 and ascending, of the columns `correct` when `scores` (N,) are sorted.

    `ordered` are the scores in ascending order.

    Only how many scores are higher matters, so nothing but the numbers is sorted, which is far faster than sorting
    columns along with them; that is done only where a correct picture shares its score with another column.
    """
    own = scores[correct]
    higher = len(scores) - np.searchsorted(ordered, own, "right")
    equal = len(scores) - np.searchsorted(ordered, own, "left") - higher
    if (equal > 1).any():
        place = np.empty(len(scores), np.intp)
        place[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        return np.sort(place[correct])
    return np.sort(higher + 1)


def _values(places: NDArray[np.intp]) -> tuple[float, ...]:
    """R@1, R@5, R@10, AP, INP of a query whose correct pictures stand at these places."""
    precision = np.arange(1, len(places) + 1) / places
    first, last = places[0], places[-1]
    return float(first <= 1), float(first <= 5), float(first <= 10), float(precision.mean()), len(places) / float(last)
