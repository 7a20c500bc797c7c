"""Query algebra on unit rows: words, a picture, or both, and what should not be there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import QueryError

NEGATIVE_WEIGHT = 0.4
"""Share of the unwanted direction that is taken away; at 1 the negative would outweigh the query itself."""


def combine(
    *,
    text: NDArray[np.float32] | None = None,
    image: NDArray[np.float32] | None = None,
    negative: NDArray[np.float32] | None = None,
    image_weight: float = 0.5,
) -> NDArray[np.float32]:
    """One unit query row (E,) from unit rows (E,) of a caption, a picture and a "without ..." text.

    Text and picture are mixed by `image_weight` in [0, 1]; of the negative, only what differs from the query is
    taken away (its component along the query is left alone, so "coat without hood" keeps the coat).
    Raises QueryError when there is neither text nor picture, or when nothing is left.
    """
    if text is None and image is None:
        raise QueryError("expected a description or a picture to search for, got neither")
    if not 0.0 <= image_weight <= 1.0:
        raise QueryError(f"image_weight must lie between 0 and 1, not {image_weight}")
    if text is None or image is None:
        query = text if image is None else image
        assert query is not None
    else:
        query = (1 - image_weight) * text + image_weight * image
    query = _unit(query)
    if negative is not None:
        across = negative - query * float(query @ negative)
        query = _unit(query - NEGATIVE_WEIGHT * across)
    return query


def _unit(row: NDArray[Any]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(row))
    if not np.isfinite(length) or length < 1e-6:
        raise QueryError("the parts of this query cancel each other out: drop one of them")
    return (row / length).astype(np.float32)
