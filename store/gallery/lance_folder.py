"""A LanceDB folder: its connection, the turns of its writers, and its faults as messages a person can act on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.background_loop import LOOP

from store.store_errors import GalleryError

_SETTLE_S = 2.0  # another process may be half way through creating a table: wait this long before calling it damaged
# LanceDB's own limit is 1 GB, and what it keeps as metadata holds the pictures read: every export would fill it.
_METADATA_BYTES = 64 * 2**20
# An index that does not fit is read again at every search: 100,000 vectors took 80 ms instead of 7.
_INDEX_BYTES = 1024 * 2**20
_TURN_S = 600.0  # a writer waits this long for its turn; building the index of a million vectors takes half a minute


class LanceFolder:
    """The tables of one LanceDB root, always in their latest state, also when other processes write.

    Handles are kept and shared by threads; LanceDB's own calls are thread-safe. Queries go through its asynchronous
    tables: the others cross threads six times for each, which takes 3 to 4 ms. Writers take turns, over all processes
    if the root is a local folder: `erase` deletes files that another writer would still need.
    Raises GalleryError if the root cannot be created, read or written.
    """

    def __init__(self, uri: str | Path) -> None:
        # Absolute, for LanceDB's two kinds of connection read a relative one differently.
        self.uri = str(uri) if "://" in str(uri) else str(Path(uri).absolute())
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self.dims: dict[str, tuple[Any, int]] = {}
        """The tables of vectors whose width was asked for, by name: the handle, and the width."""
        with self.faults("open"):
            session = lancedb.Session(index_cache_size_bytes=_INDEX_BYTES, metadata_cache_size_bytes=_METADATA_BYTES)
            # Interval 0: look for other processes' writes at every call. Without it they are never seen.
            fresh = timedelta(0)
            self._connection = lancedb.connect(self.uri, read_consistency_interval=fresh, session=session)
            self._queries = LOOP.run(lancedb.connect_async(self.uri, read_consistency_interval=fresh, session=session))
        self._turn = threading.RLock()
        self._file_turn = FileLock(Path(self.uri) / ".lock") if self.local else None

    @property
    def local(self) -> bool:
        """Whether the root is a folder of this machine and no object store."""
        return "://" not in self.uri

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's turn; a thread that holds it may enter again. Raises GalleryError after ten minutes."""
        with self._turn:
            if self._file_turn is None:
                yield
                return
            with self.faults("write to"):
                try:
                    self._file_turn.acquire(timeout=_TURN_S)
                except Timeout as fault:
                    raise GalleryError(
                        f"Another process has been writing to the gallery at {self.uri} for ten minutes. "
                        "Wait for it, or end it, then try again."
                    ) from fault
            try:
                yield
            finally:
                self._file_turn.release()

    @contextmanager
    def faults(self, verb: str, table: str | None = None) -> Iterator[None]:
        """Turn LanceDB's faults into a GalleryError, and close the table's handles."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as fault:
            if table is not None:
                self._close(table)
            place = f"table {table!r} of the gallery at {self.uri}" if table else f"the gallery at {self.uri}"
            if table is not None and verb != "create" and not self.has(table):
                raise GalleryError(
                    f"Expected to {verb} {place}, but the table was deleted in between. Open it again."
                ) from fault
            reason = str(fault).split(", /", 1)[0]  # LanceDB ends with the place in its own source
            raise GalleryError(
                f"Expected to {verb} {place}, but: {reason}. Check that the folder exists, can be written "
                "and has room; if files in it are damaged or missing, restore it from a copy, or delete it and "
                "index the pictures again."
            ) from fault

    def names(self) -> list[str]:
        """Return the names of all tables, sorted."""
        names: list[str] = []
        token = None
        with self.faults("list"):
            while True:
                page = self._connection.list_tables(page_token=token)
                names += page.tables
                token = page.page_token
                if not token:
                    return sorted(names)

    def has(self, name: str) -> bool:
        """Return whether there is such a table now, whatever was opened before."""
        return name in self.names()

    def reopen(self, name: str) -> None:
        """Open a table, whatever was opened before. Raises GalleryError if it cannot be opened."""
        with self.faults("open", name):
            self._connection.open_table(name)

    def table(self, name: str) -> Any | None:
        """Return the table, or None if there is none. Raises GalleryError if it cannot be opened.

        An empty folder, left where creating or deleting a table was killed, is no table and is deleted.
        """
        with self._lock:
            if name in self._open:
                return self._open[name]
        deadline, settled = time.monotonic() + _SETTLE_S, False
        while self.has(name):
            try:
                table = self._connection.open_table(name)
            except (OSError, RuntimeError, ValueError):
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                if settled:
                    with self.faults("open", name):
                        raise
                if self._delete_empty(name):
                    return None
                settled = True  # another process was creating it and had the turn before: once more
                continue
            with self._lock:
                return self._open.setdefault(name, table)
        return None

    def create(self, name: str, schema: pa.Schema) -> Any:
        """Return the table, created empty unless it exists; two processes may do so at once."""
        table = self.table(name)
        if table is not None:
            return table
        with self.writing(), self.faults("create", name):
            try:
                table = self._connection.create_table(name, schema=schema)
            except ValueError as fault:
                if "already exists" not in str(fault):
                    raise
                table = None
        if table is None:  # another process was faster
            table = self.table(name)
            if table is None:
                raise GalleryError(f"Table {name!r} of the gallery at {self.uri} was removed in between. Try again.")
            return table
        with self._lock:
            return self._open.setdefault(name, table)

    def drop(self, name: str) -> None:
        """Delete the table and its files; nothing happens if there is none."""
        with self.writing():
            if self.has(name):
                with self.faults("delete", name):
                    self._connection.drop_table(name, ignore_missing=True)
                self._close(name)

    def _delete_empty(self, name: str) -> bool:
        """Delete the folder of a table without rows and without a state, and return whether it was one.

        In a writer's turn, so that nobody is creating it. The folder may hold the plan of a first state
        (`_transactions`) and unfinished files (`.tmp*`).
        """
        if not self.local:
            return False
        folder = Path(self.uri, f"{name}.lance")
        with self.writing(), self.faults("open", name):
            files = [path for path in folder.rglob("*") if not path.is_dir()]
            if not all(path.parent == folder / "_transactions" or path.name.startswith(".tmp") for path in files):
                return False
            for path in files:
                path.unlink(missing_ok=True)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir()  # fails if a file came in between
            if folder.exists():
                folder.rmdir()
        return True

    def _close(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)
            self.dims.pop(name, None)
            self._asked.pop(name, None)

    def query(self, name: str, build: Callable[[Any], Any]) -> pa.Table:
        """Return the rows of the query that `build` makes of an AsyncTable; run again if files vanished while it read.

        Raises GalleryError if there is no table.
        """

        async def answer() -> pa.Table:
            table = self._asked.get(name)
            if table is None:
                table = self._asked[name] = await self._queries.open_table(name)
            return await build(table).to_arrow()

        for last in (False, True):
            if self.table(name) is None:
                raise GalleryError(
                    f"The gallery at {self.uri} has no table {name!r} any more. Open it again, or index the pictures "
                    "again."
                )
            try:
                with self.faults("read", name):
                    return LOOP.run(answer())
            except GalleryError:
                if last or not self.has(name):
                    raise
        raise AssertionError("the second try returns or raises")
