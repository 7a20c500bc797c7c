"""Tending: the index of what is served is kept fresh in a thread, off every request's path."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from store import Forgetting, Gallery
from store.errors import StoreError

log = logging.getLogger(__name__)


class Tender:
    """Looks at the served version's table every so many seconds and brings its index up to date when it is due.

    It also ends what was left half forgotten: by a command that was killed, or for want of room.

    One thread, and the gallery's writers take turns over all processes: never two at once. A fault is logged, and
    the next round tries again. `close` lets a round under way end: half an index would be built for nothing.
    """

    def __init__(
        self, gallery: Gallery, serving: Callable[[], str], *, forgetting: Forgetting | None = None, every: float = 10.0
    ) -> None:
        self._gallery, self._serving, self._every = gallery, serving, every
        self._forgetting, self._pending = forgetting, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._finish()
                version = self._serving()
                if self._gallery.tend(version):
                    log.info("the vectors of version %s were brought up to date", version)
            except StoreError as error:
                log.error("the gallery could not be tended, trying again: %s", error)
            except Exception:  # the thread must live: without it searches would only get slower
                log.exception("tending the gallery failed, trying again")

    def _finish(self) -> None:
        """Ends what was being forgotten a round ago and still is. Where somebody is at it, the work is the same."""
        if self._forgetting is None:
            return
        pending = self._forgetting.pending()
        if pending and pending == self._pending:
            done = self._forgetting.finish()
            log.info("pictures that were left half forgotten: %d", 0 if done is None else len(pending))
        self._pending = pending

    def close(self) -> None:
        """Stop after the round under way."""
        self._stop.set()
        self._thread.join()
