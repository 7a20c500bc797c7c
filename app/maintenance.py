"""Tending: the index of what is served is kept fresh in a thread, off every request's path."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from store import Deletion, Gallery
from store.store_errors import StoreError

_PRUNE_EVERY = 60.0

log = logging.getLogger(__name__)

_MOST_WAITS = 64  # rounds between two tries: some ten minutes


class Tender:
    """Looks at the served version's table every so many seconds and brings its index up to date when it is due.

    It also ends what was left half forgotten, by a command that was killed or for want of room, and embeds the gallery
    anew, by `embed`, where the served version's table is gone: forgetting deletes a table that cannot be read.

    One thread, and the gallery's writers take turns over all processes: never two at once. A fault is logged, and
    the next round tries again. `close` lets a round under way end, for half an index would be built for nothing, but
    not an embedding: it asks whether to stop before each batch.
    """

    def __init__(
        self,
        gallery: Gallery,
        serving: Callable[[], str],
        *,
        embed: Callable[[Callable[[], bool]], None] | None = None,
        forgetting: Deletion | None = None,
        prune: Callable[[], int] | None = None,
        every: float = 10.0,
    ) -> None:
        self._gallery, self._serving, self._every = gallery, serving, every
        self._embed, self._lost = embed, False
        self._forgetting, self._waits, self._left = forgetting, 1, 1
        self._prune, self._pruned = prune, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for work in (self._finish, self._tend, self._prune_searches):
                if self._stop.is_set():
                    return
                try:
                    work()
                except StoreError as error:
                    log.error("the gallery could not be tended, trying again: %s", error)
                except Exception:  # the thread must live: without it searches would only get slower
                    log.exception("tending the gallery failed, trying again")

    def _tend(self) -> None:
        version = self._serving()
        self._lost = self._lost or version not in self._gallery.versions()
        if self._embed is not None and self._lost:
            log.warning("vectors of version %s are gone: embedding anew", version)
            self._embed(self._stop.is_set)
            self._lost = False
        if self._gallery.maintain(version):
            log.info("the vectors of version %s were brought up to date", version)

    def _finish(self) -> None:
        """Ends what was left half forgotten, unless somebody is at it; where that fails, ever more seldom: each try
        costs the indexes."""
        if self._forgetting is None or not self._forgetting.pending():
            self._waits = self._left = 1
            return
        self._left -= 1
        if self._left:
            return
        self._waits = self._left = min(2 * self._waits, _MOST_WAITS)
        if self._forgetting.finish(wait=False) is not None:
            log.info("pictures that were left half forgotten are forgotten")
        self._waits = self._left = 1  # or somebody else is at it

    def _prune_searches(self) -> None:
        """Deletes searches that nobody marked, once a minute."""
        if self._prune is None or time.monotonic() - self._pruned < _PRUNE_EVERY:
            return
        self._pruned = time.monotonic()
        deleted = self._prune()
        if deleted:
            log.info("%d searches that nobody marked were deleted", deleted)

    def close(self) -> None:
        """Stop after the round under way."""
        self._stop.set()
        self._thread.join()
