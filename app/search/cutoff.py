"""From which score on a result is a weak match: how far under the best score of its search, estimated from marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from app.search.retriever import Retriever
from app.state import State

USUAL = 0.15
"""Cosine under the best result's where there are too few marks to estimate it from."""
LEAST = 30
"""Hits, and misses, from which it is estimated."""
NEWEST = 5_000
"""Marks that are looked at, the newest."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A result is weak when its cosine is more than `gap` under the best one's.

    `accuracy` is the balanced accuracy with which this separates `hits` from `misses`, 0.5 to 1; None: the usual value.
    """

    gap: float = USUAL
    hits: int = 0
    misses: int = 0
    accuracy: float | None = None

    def text(self, version: str) -> str:
        """What it is and where it comes from, as a sentence."""
        said = f"Results of {version} more than {self.gap:.3f} below the best score are called weak matches."
        if self.accuracy is not None:
            found = f"That is estimated from {self.hits + self.misses:,} marks: it separates hits from misses"
            return f"{said} {found} with {100 * self.accuracy:.0f} % balanced accuracy."
        if min(self.hits, self.misses) < LEAST:
            return f"{said} That is the usual value: fewer than {LEAST} hits and {LEAST} misses are known of it."
        return f"{said} That is the usual value: its hits have no better scores than its misses."


def estimate(hits: Sequence[float], misses: Sequence[float]) -> Cutoff:
    """Return the cut-off that separates these gaps under the best score with the highest balanced accuracy.

    It lies midway between two marks. Of equally good ones the largest is taken, so that fewer results are called weak.
    """
    usual = Cutoff(USUAL, len(hits), len(misses))
    if min(len(hits), len(misses)) < LEAST:
        return usual
    gaps = np.concatenate([hits, misses])
    order = np.argsort(gaps, kind="stable")
    gaps, hit = gaps[order], order < len(hits)
    balanced = (np.cumsum(hit) / len(hits) + 1 - np.cumsum(~hit) / len(misses)) / 2
    between = np.flatnonzero(gaps[:-1] < gaps[1:])
    if not len(between) or balanced[between].max() <= 0.5 + 1e-9:
        return usual
    best = between[np.flatnonzero(balanced[between] >= balanced[between].max() - 1e-9)[-1]]
    gap = round(float(gaps[best] + gaps[best + 1]) / 2, 4)
    return Cutoff(gap, len(hits), len(misses), float(balanced[best]))


class Cutoffs:
    """The cut-off of the version in use. Searches take what is known; `refresh` estimates it beside them."""

    def __init__(self, state: State, retriever: Retriever) -> None:
        self._state, self._retriever = state, retriever
        self._known: tuple[tuple[str, int, int], Cutoff] | None = None
        self._turn = Lock()

    def known(self, version: str) -> Cutoff:
        """Return what was estimated last for this version, or the usual value; asks no database."""
        known = self._known
        return known[1] if known is not None and known[0][0] == version else Cutoff()

    def refresh(self) -> Cutoff:
        """Return the cut-off of the version in use; estimated again only after a new event or a deletion."""
        with self._turn:
            version, marks = self._retriever.serving.version, self._state.marks
            at = version, marks.newest(), self._state.deletion.count()
            if self._known is None or self._known[0] != at:
                gaps = marks.gaps(version, newest=NEWEST)
                of = {verdict: [gap for given, gap in gaps if given == verdict] for verdict in ("hit", "miss")}
                self._known = at, estimate(of["hit"], of["miss"])
            return self._known[1]
