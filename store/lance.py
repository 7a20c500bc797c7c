"""A LanceDB folder: its tables, opened once and kept, and its faults told in words a person can act on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from store.errors import GalleryError

_SETTLE_S = 2.0  # another process may be half way through creating a table: wait this long before calling it damaged
_KEEP_OLD = timedelta(minutes=10)  # readers of an older state of a table have this long to finish
# LanceDB's own limit is 1 GB, and what it keeps as metadata holds the pictures read: every export would fill it.
_CACHE_BYTES = 64 * 2**20


class LanceFolder:
    """The tables of one LanceDB root, seen as they are now even when other processes write.

    Handles are kept and shared by threads; LanceDB's own calls are thread-safe. Raises GalleryError where
    the root cannot be created, read or written.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}
        with self.faults("open"):
            session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
            # Interval 0: look for other processes' writes at every call. Without it they are never seen.
            self._connection = lancedb.connect(self.uri, read_consistency_interval=timedelta(0), session=session)

    @contextmanager
    def faults(self, verb: str, table: str | None = None) -> Iterator[None]:
        """Turns LanceDB's faults into a GalleryError, and forgets the table's handle."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as fault:
            if table is not None:
                with self._lock:
                    self._open.pop(table, None)
            place = f"table {table!r} of the gallery at {self.uri}" if table else f"the gallery at {self.uri}"
            if table is not None and verb != "create" and not self.has(table):
                raise GalleryError(
                    f"Expected to {verb} {place}, but the table was deleted meanwhile. Open it again."
                ) from fault
            reason = str(fault).split(", /", 1)[0]  # LanceDB ends with the place in its own source
            raise GalleryError(
                f"Expected to {verb} {place}, but: {reason}. Check that the folder exists, can be written "
                "and has room; if files in it are damaged or missing, restore it from a copy, or delete it and "
                "index the pictures again."
            ) from fault

    def names(self) -> list[str]:
        """The names of all tables, sorted."""
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
        """Whether there is such a table now, whatever was opened before."""
        return name in self.names()

    def table(self, name: str) -> Any | None:
        """The table, or None if there is none; raises GalleryError if there is one that cannot be opened."""
        with self._lock:
            if name in self._open:
                return self._open[name]
        deadline = time.monotonic() + _SETTLE_S
        while self.has(name):
            try:
                table = self._connection.open_table(name)
            except (OSError, RuntimeError, ValueError):
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                with self.faults("open", name):
                    raise
            with self._lock:
                return self._open.setdefault(name, table)
        return None

    def create(self, name: str, schema: pa.Schema) -> Any:
        """The table, made empty unless it is there; two processes may ask at once."""
        table = self.table(name)
        if table is not None:
            return table
        with self.faults("create", name):
            try:
                table = self._connection.create_table(name, schema=schema)
            except ValueError as fault:
                if "already exists" not in str(fault):
                    raise
                table = None
        if table is None:  # another process was faster
            table = self.table(name)
            if table is None:
                raise GalleryError(f"Table {name!r} of the gallery at {self.uri} was removed meanwhile. Try again.")
            return table
        with self._lock:
            return self._open.setdefault(name, table)

    def drop(self, name: str) -> None:
        """Deletes the table and its files; nothing happens if there is none."""
        if not self.has(name):
            return
        with self.faults("delete", name):
            self._connection.drop_table(name, ignore_missing=True)
        with self._lock:
            self._open.pop(name, None)

    def read(self, name: str, columns: list[str], where: Any = None) -> pa.Table:
        """Columns of all rows (or those that pass) of a table that must be there."""
        table = self.table(name)
        if table is None:
            raise GalleryError(
                f"The gallery at {self.uri} has no table {name!r} any more. Open it again, or index the pictures again."
            )
        with self.faults("read", name):
            query = table.search()
            if where is not None:
                query = query.where(where)
            return query.select(columns).to_arrow()

    def insert(self, name: str, rows: pa.Table) -> int:
        """Adds the rows whose key is not there yet, in one transaction; how many these were."""
        table = self.table(name)
        if table is None:
            raise GalleryError(f"Table {name!r} of the gallery at {self.uri} was removed meanwhile. Start again.")
        with self.faults("write to", name):
            merge = table.merge_insert(rows.column_names[0]).when_not_matched_insert_all()
            return int(merge.execute(rows).num_inserted_rows)

    def delete(self, name: str, where: Any) -> int:
        """Deletes the rows that pass; how many these were."""
        table = self.table(name)
        if table is None:
            return 0
        with self.faults("delete from", name):
            return int(table.delete(where).num_deleted_rows)

    def compact(self, name: str) -> bool:
        """Joins small fragments, which a search would open one by one; False if another process is at it."""
        table = self.table(name)
        if table is None:
            return False
        with self.faults("compact", name):
            try:
                table.optimize(cleanup_older_than=_KEEP_OLD)
            except RuntimeError as fault:
                if "commit conflict" not in str(fault):
                    raise
                return False  # rows are complete either way; the next call compacts
        return True
