"""Re-ranking an open search by its own marks: which candidates take part, and in which order they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.rerank import rerank
from store import Candidate, Gallery, Verdict

DEPTH = 1_000
"""How many of a search's best candidates are re-ranked; those below keep their places."""

_SIGN = {"hit": 1, "miss": -1, "wrong_person": 0}


def reranked(
    gallery: Gallery,
    version: str,
    query: NDArray[np.float32],
    candidates: Sequence[Candidate],
    verdicts: Mapping[str, Verdict],
) -> list[Candidate]:
    """`candidates`, in the order they are shown now, the first `DEPTH` by the query aligned with the verdicts on them.

    Those judged stay where they are. Ranks and scores stay those of the search, so that marks are kept with what
    the version itself said. Pictures forgotten since drop out.
    """
    by_id = {candidate.image_id: candidate for candidate in candidates}
    ids, rows = gallery.vectors(version, list(by_id))
    if not ids:
        return []
    signs = np.array([_SIGN[verdicts[image_id]] if image_id in verdicts else 0 for image_id in ids])
    judged = np.array([image_id in verdicts for image_id in ids])
    places = rerank(query, rows[:DEPTH], signs[:DEPTH], judged=judged[:DEPTH])
    return [by_id[image_id] for image_id in (*(ids[place] for place in places), *ids[DEPTH:])]
