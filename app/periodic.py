"""Work in the background, every few seconds until it is closed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from store.store_errors import StoreError

log = logging.getLogger(__name__)


class Periodic:
    """Calls each `work` in turn every `seconds`, in a thread of its own.

    What one raises is logged, and it is called again in the next round: the thread lives until `close`, which waits
    `patience` seconds for the work under way (None: until it is done).
    """

    def __init__(self, seconds: float, *work: Callable[[], object], name: str, patience: float | None = None) -> None:
        self._seconds, self._work, self._name, self._patience = seconds, work, name, patience
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the work under way."""
        self._stop.set()
        self._thread.join(self._patience)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            for work in self._work:
                if self._stop.is_set():
                    return
                try:
                    work()
                except (StoreError, OSError) as error:
                    log.error("%s failed, trying again: %s", self._name, error)
                except Exception:
                    log.exception("%s failed, trying again", self._name)
