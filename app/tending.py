"""Tending: the index of what is served is kept fresh in a thread, off every request's path."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from store import Gallery
from store.errors import StoreError

log = logging.getLogger(__name__)


class Tender:
    """Looks at the served version's table every so many seconds and brings its index up to date when it is due.

    One thread, and the gallery's writers take turns over all processes: never two at once. A fault is logged, and
    the next round tries again. `close` lets a round under way end: half an index would be built for nothing.
    """

    def __init__(self, gallery: Gallery, serving: Callable[[], str], *, every: float = 10.0) -> None:
        self._gallery, self._serving, self._every = gallery, serving, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                version = self._serving()
                if self._gallery.tend(version):
                    log.info("the vectors of version %s were brought up to date", version)
            except StoreError as error:
                log.error("the gallery could not be tended, trying again: %s", error)
            except Exception:  # the thread must live: without it searches would only get slower
                log.exception("tending the gallery failed, trying again")

    def close(self) -> None:
        """Stop after the round under way."""
        self._stop.set()
        self._thread.join()
