"""A LanceDB folder: its tables, opened once and kept, and its faults told in words a person can act on."""

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
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from lancedb.background_loop import LOOP
from lancedb.expr import col
from lancedb.index import Bitmap, BTree, IvfSq

from store.store_errors import GalleryError

_SETTLE_S = 2.0  # another process may be half way through creating a table: wait this long before calling it damaged
_KEEP_OLD = timedelta(minutes=10)  # readers of an older state of a table have this long to finish
# LanceDB's own limit is 1 GB, and what it keeps as metadata holds the pictures read: every export would fill it.
_METADATA_BYTES = 64 * 2**20
# An index that does not fit is read again at every search: 100,000 vectors took 80 ms instead of 7.
_INDEX_BYTES = 1024 * 2**20
_TURN_S = 600.0  # a writer waits this long for its turn; building the index of a million vectors takes half a minute
# Columns that searches filter by, with the kind of index for few or for many distinct values.
_FACT_INDEXES = {"source": Bitmap(), "camera": Bitmap(), "pid": BTree(), "captured_at": BTree()}


class LanceFolder:
    """The tables of one LanceDB root, seen as they are now even when other processes write.

    Handles are kept and shared by threads; LanceDB's own calls are thread-safe. Queries go through its asynchronous
    tables: the others cross threads six times for each, which takes 3 to 4 ms. Writers take turns, over all processes
    if the root is a local folder: `erasing` deletes files that a write under way would still need.
    Raises GalleryError where the root cannot be created, read or written.
    """

    def __init__(self, uri: str | Path) -> None:
        # Absolute, for LanceDB's two kinds of connection read a relative one differently.
        self.uri = str(uri) if "://" in str(uri) else str(Path(uri).absolute())
        self._lock = threading.Lock()
        self._open: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
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
        """A writer's turn; a thread that has it may ask again. Raises GalleryError after ten minutes of waiting."""
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
        """Turns LanceDB's faults into a GalleryError, and forgets the table's handles."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as fault:
            if table is not None:
                self._close(table)
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

    def opens(self, name: str) -> bool:
        """Whether the table can be opened, or there is none."""
        try:
            self.table(name)
        except GalleryError:
            return False
        return True

    def reopen(self, name: str) -> None:
        """Sees that a table can be opened now, whatever was opened before. Raises GalleryError."""
        with self.faults("open", name):
            self._connection.open_table(name)

    def version(self, name: str) -> int:
        """The number of a table's latest state; 0 if there is none."""
        table = self.table(name)
        if table is None:
            return 0
        with self.faults("read", name):
            return int(table.version)

    def table(self, name: str) -> Any | None:
        """The table, or None if there is none; raises GalleryError if there is one that cannot be opened.

        A folder that holds nothing, which a kill left of creating or deleting a table, is none and is taken away.
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
                if self._take_away_empty(name):
                    return None
                settled = True  # whoever was creating it had the turn before: once more
                continue
            with self._lock:
                return self._open.setdefault(name, table)
        return None

    def create(self, name: str, schema: pa.Schema) -> Any:
        """The table, made empty unless it is there; two processes may ask at once."""
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
                raise GalleryError(f"Table {name!r} of the gallery at {self.uri} was removed meanwhile. Try again.")
            return table
        with self._lock:
            return self._open.setdefault(name, table)

    def drop(self, name: str) -> None:
        """Deletes the table and its files; nothing happens if there is none."""
        with self.writing():
            if self.has(name):
                with self.faults("delete", name):
                    self._connection.drop_table(name, ignore_missing=True)
                self._close(name)

    def _take_away_empty(self, name: str) -> bool:
        """Deletes the folder of a table without rows and without a state; whether it did. In a turn: nobody is creating
        it. The plan of a first state may be there (`_transactions`), and what was not finished (`.tmp*`)."""
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
                path.rmdir()  # refuses where anything is left that was not seen
            if folder.exists():
                folder.rmdir()
        return True

    def _close(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)
            self._asked.pop(name, None)

    def query(self, name: str, ask: Callable[[Any], Any]) -> pa.Table:
        """What the query that `ask` makes of an AsyncTable, which must be there, finds; asked again if files vanished
        while it read."""

        async def answer() -> pa.Table:
            table = self._asked.get(name)
            if table is None:
                table = self._asked[name] = await self._queries.open_table(name)
            return await ask(table).to_arrow()

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

    def read(self, name: str, columns: list[str], where: Any = None) -> pa.Table:
        """Columns of all rows (or those that pass) of a table that must be there."""

        def ask(table: Any) -> Any:
            query = table.query().select(columns)
            return query if where is None else query.where(where)

        return self.query(name, ask)

    def batches(self, name: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a table, a batch at a time; none if the table is not there."""
        table = self.table(name)
        if table is None:
            return
        with self.faults("read", name):
            yield from table.search().select(columns).to_batches()

    def insert(self, name: str, rows: pa.Table, *, known_in: str | None = None) -> int:
        """Adds the rows whose key is not there yet, in one transaction; how many these were.

        `known_in` names a table whose keys alone may be added: what was deleted from it meanwhile is left out.
        """
        key = rows.column_names[0]
        with self.writing():
            table = self.table(name)
            if table is None:
                raise GalleryError(f"Table {name!r} of the gallery at {self.uri} was removed meanwhile. Start again.")
            if known_in is not None:
                known = self.read(known_in, [key], col(key).isin(rows[key].to_pylist()))[key]
                rows = rows.filter(pc.is_in(rows[key], value_set=known.combine_chunks()))
                if not rows.num_rows:
                    return 0
            with self.faults("write to", name):
                merge = table.merge_insert(key).when_not_matched_insert_all()
                return int(merge.execute(rows).num_inserted_rows)

    def update(self, name: str, rows: pa.Table) -> None:
        """Writes these columns into the rows whose keys, in the first one, are there."""
        with self.writing():
            table = self.table(name)
            if table is not None:
                with self.faults("write to", name):
                    table.merge_insert(rows.column_names[0]).when_matched_update_all().execute(rows)

    def add_column(self, name: str, field: pa.Field) -> None:
        """Adds a column of nulls unless it is there."""
        with self.writing():
            table = self.table(name)
            if table is not None:
                with self.faults("write to", name):
                    if field.name not in table.schema.names:
                        table.add_columns(pa.schema([field]))

    def delete(self, name: str, where: Any) -> int:
        """Deletes the rows that pass; how many these were. Their bytes stay on disk for a while: see `erasing`."""
        with self.writing():
            table = self.table(name)
            if table is None:
                return 0
            with self.faults("delete from", name):
                return int(table.delete(where).num_deleted_rows)

    def compact(self, name: str) -> None:
        """Joins small fragments, which a search would open one by one, and takes new rows into the index."""
        with self.writing():
            table = self.table(name)
            if table is None:
                return
            with self.faults("compact", name):
                table.optimize(cleanup_older_than=_KEEP_OLD)

    def rows(self, name: str) -> int:
        """How many rows a table has; none if it is not there."""
        table = self.table(name)
        if table is None:
            return 0
        with self.faults("count", name):
            return int(table.count_rows())

    def small_fragments(self, name: str) -> int:
        """How many fragments `compact` would join."""
        table = self.table(name)
        if table is None:
            return 0
        with self.faults("read", name):
            return int(table.stats()["fragment_stats"]["num_small_fragments"])

    def index_of(self, name: str, column: str) -> tuple[str, int] | None:
        """The name of a column's index, and how many rows it does not cover yet; None if there is none."""
        table = self.table(name)
        if table is None:
            return None
        with self.faults("read", name):
            found = [index for index in table.list_indices() if index.columns == [column]]
            return (found[0].name, int(found[0].num_unindexed_rows)) if found else None

    def index_keys(self, name: str, column: str) -> None:
        """Builds the index of a column of keys anew."""
        with self.writing():
            table = self.table(name)
            if table is not None:
                with self.faults("index", name):
                    table.create_index(column, config=BTree(), replace=True)

    def index(self, name: str, as_: str, *, parts: int) -> None:
        """Builds the index of the column `vector` anew, for cosines, under the name `as_`; and those of the facts.

        Searches use the former one until the new one is there.
        """
        with self.writing():
            table = self.table(name)
            if table is None:
                return
            with self.faults("index", name):
                for column, kind in _FACT_INDEXES.items():  # first: with that of the vectors all are taken to be there
                    table.create_index(column, config=kind, replace=True)
                former = [index.name for index in table.list_indices() if index.columns == ["vector"]]
                # The parts' centres come from 64 rows each in 15 rounds: a million rows take 20 s then.
                parting = IvfSq(distance_type="cosine", num_partitions=parts, sample_rate=64, max_iterations=15)
                table.create_index("vector", config=parting, name=as_, replace=True)
                for index in former:
                    if index != as_:
                        table.drop_index(index)
