"""Query algebra on unit rows: words, a picture, or both, what should not be there, and what is shown twice.

A query is one unit row q; the gallery is ranked by the cosine of q and each embedding.

    q0 = (1 - w) text + w picture        w is `image_weight`; with one of them alone q0 is that one
    u  = negative - (negative . q0) q0   what the unwanted text adds to the query
    q  = q0 - n u                        n is `negative_weight`

q0 and q are brought back to length 1, u is not. Pure functions of float32 rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.core_errors import QueryError

NEGATIVE_WEIGHT = 0.4
"""Share of the unwanted direction that is removed; at 1 the negative would outweigh the query itself."""
SAME_PICTURE = 0.97
"""Cosine from which two pictures count as near duplicates. Measured under `mini` (tests/benchmarks/duplicates.py, 600
pictures): JPEG of quality 60 at least 0.985, half the size at least 0.974, other pictures of the same person at most
0.966, of other people at most 0.935."""


def combine(
    *,
    text: NDArray[np.float32] | None = None,
    image: NDArray[np.float32] | None = None,
    negative: NDArray[np.float32] | None = None,
    image_weight: float = 0.5,
    negative_weight: float = NEGATIVE_WEIGHT,
) -> NDArray[np.float32]:
    """Return one unit query row (E,) from unit rows (E,) of a caption, a picture and a "without ..." text.

    Text and picture are mixed by `image_weight` in [0, 1]; of the negative, only what differs from the query is
    taken away (its component along the query is left alone, so "coat without hood" keeps the coat), by
    `negative_weight` in [0, 1]. Raises QueryError when there is neither text nor picture, or when nothing is left.
    """
    if text is None and image is None:
        raise QueryError("expected a description or a picture to search for, got neither")
    for name, weight in (("image_weight", image_weight), ("negative_weight", negative_weight)):
        if not 0.0 <= weight <= 1.0:
            raise QueryError(f"{name} must lie between 0 and 1, not {weight}")
    if text is None or image is None:
        query = text if image is None else image
        assert query is not None
    else:
        query = (1 - image_weight) * text + image_weight * image
    query = _unit(query)
    if negative is not None:
        across = negative - query * float(query @ negative)
        query = _unit(query - negative_weight * across)
    return query


def near_duplicates(rows: NDArray[np.float32], *, threshold: float = SAME_PICTURE) -> NDArray[np.int64]:
    """Return, for each of the unit rows (N, E), best first, the number of the row it duplicates, or its own; (N,).

    A row duplicates the first row that is no duplicate itself and whose cosine with it is at least `threshold`: so
    every duplicate is that close to the row it duplicates, and long chains of small steps do not join into one group.
    """
    likeness = rows @ rows.T
    leader = np.arange(len(rows))
    for row in range(1, len(rows)):
        close = np.flatnonzero((likeness[row, :row] >= threshold) & (leader[:row] == np.arange(row)))
        if len(close):
            leader[row] = close[0]
    return leader


def _unit(row: NDArray[Any]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(row))
    if not np.isfinite(length) or length < 1e-6:
        raise QueryError("the parts of this query cancel each other out: drop one of them")
    return (row / length).astype(np.float32)
