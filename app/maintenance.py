"""Maintenance of the gallery that runs beside the requests: its index, its vectors, and interrupted deletions."""

from __future__ import annotations

import logging
import threading

from app.search.retriever import Retriever
from app.state import State

log = logging.getLogger(__name__)

_MOST_WAITS = 64
"""Rounds between two tries to complete a deletion, at most: some ten minutes."""


class Maintenance:
    """What is done every few seconds, by a `Periodic`; the gallery's writers take turns over all processes."""

    def __init__(self, state: State, retriever: Retriever) -> None:
        self._state, self._retriever = state, retriever
        self._waits = self._left = 1
        self._lost, self._cancelled = False, threading.Event()

    def cancel(self) -> None:
        """Let embedding the gallery again end before its next batch; the index is always completed."""
        self._cancelled.set()

    def complete_deletion(self) -> None:
        """Complete a deletion that was interrupted, unless another process deletes right now.

        Where that fails, later rounds try less and less often: each try drops the indexes.
        """
        deletion = self._state.deletion
        if not deletion.pending():
            self._waits = self._left = 1
            return
        self._left -= 1
        if self._left:
            return
        self._waits = self._left = min(2 * self._waits, _MOST_WAITS)
        if deletion.finish(wait=False) is not None:
            log.info("an interrupted deletion was completed")
        self._waits = self._left = 1

    def update_index(self) -> None:
        """Bring the index of the version that serves up to date.

        Embeds the gallery again where the table of vectors is gone, for deletion drops one that cannot be read.
        """
        gallery, version = self._state.gallery, self._retriever.serving.vectors
        self._lost = self._lost or version not in gallery.versions()
        if self._lost:
            log.warning("vectors of version %s are gone: embedding the gallery again", version)
            self._retriever.embed_again(self._cancelled.is_set)
            self._lost = False
        if gallery.maintain(version):
            log.info("the vectors of version %s were brought up to date", version)

    def prune_searches(self) -> None:
        """Delete old searches that nobody marked."""
        deleted = self._state.prune_searches()
        if deleted:
            log.info("%d searches that nobody marked were deleted", deleted)
