"""One table of a LanceDB folder: its rows read, written, counted and indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col
from lancedb.index import Bitmap, BTree, IvfSq

from store.gallery.lance_folder import LanceFolder
from store.store_errors import GalleryError

_KEEP_OLD = timedelta(minutes=10)  # readers of an older state of a table have this long to finish
# Columns that searches filter by, with the kind of index for few or for many distinct values.
_FACT_INDEXES = {"source": Bitmap(), "camera": Bitmap(), "pid": BTree(), "captured_at": BTree()}


class Table:
    """A table by its name, which may exist or not. Holds no state of its own, so it is cheap to make."""

    def __init__(self, folder: LanceFolder, name: str) -> None:
        self.folder, self.name = folder, name

    # Read

    def handle(self) -> Any | None:
        """Return LanceDB's table, or None if there is none. Raises GalleryError if it cannot be opened."""
        return self.folder.table(self.name)

    def existing(self) -> Any:
        """Return LanceDB's table. Raises GalleryError if there is none."""
        table = self.handle()
        if table is None:
            raise GalleryError(f"Table {self.name!r} of the gallery at {self.folder.uri} was removed. Start again.")
        return table

    def exists(self) -> bool:
        """Return whether there is such a table now, whatever was opened before."""
        return self.folder.has(self.name)

    def opens(self) -> bool:
        """Return whether the table can be opened, or there is none."""
        try:
            self.handle()
        except GalleryError:
            return False
        return True

    def version(self) -> int:
        """Return the number of the table's latest state; 0 if there is no table."""
        table = self.handle()
        if table is None:
            return 0
        with self.folder.faults("read", self.name):
            return int(table.version)

    def columns(self) -> list[str]:
        """Return the names of the columns of a table that must exist."""
        table = self.existing()
        with self.folder.faults("read", self.name):
            return list(table.schema.names)

    def query(self, build: Callable[[Any], Any]) -> pa.Table:
        """Return the rows of the query that `build` makes of an AsyncTable. Raises GalleryError if none exists."""
        return self.folder.query(self.name, build)

    def read(self, columns: list[str], where: Any = None) -> pa.Table:
        """Return columns of all rows, or of those that pass. Raises GalleryError if there is no table."""

        def build(table: Any) -> Any:
            query = table.query().select(columns)
            return query if where is None else query.where(where)

        return self.query(build)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns a batch at a time; none if there is no table."""
        table = self.handle()
        if table is None:
            return
        with self.folder.faults("read", self.name):
            yield from table.search().select(columns).to_batches()

    def read_through(self) -> None:
        """Read all that the table holds. Raises GalleryError if some of it cannot be read."""
        if self.handle() is not None:
            for _ in self.batches(self.columns()):
                pass

    def rows(self) -> int:
        """Return how many rows there are; 0 if there is no table."""
        table = self.handle()
        if table is None:
            return 0
        with self.folder.faults("count", self.name):
            return int(table.count_rows())

    def mean_bytes(self) -> float:
        """Return the mean size of a row on disk."""
        table = self.existing()
        with self.folder.faults("read", self.name):
            stats = table.stats()
        return int(stats["total_bytes"]) / max(1, int(stats["num_rows"]))

    # Write

    def create(self, schema: pa.Schema) -> Any:
        """Return the table, created empty unless it exists; two processes may do so at once."""
        return self.folder.create(self.name, schema)

    def drop(self) -> None:
        """Delete the table and its files; nothing happens if there is none."""
        self.folder.drop(self.name)

    def insert(self, rows: pa.Table, *, known_in: Table | None = None) -> int:
        """Add the rows whose key is new, in one transaction, and return how many were added.

        `known_in` is a table whose keys alone may be added: what was deleted from it in between is left out.
        """
        key = rows.column_names[0]
        with self.folder.writing():
            table = self.existing()
            if known_in is not None:
                known = known_in.read([key], col(key).isin(rows[key].to_pylist()))[key]
                rows = rows.filter(pc.is_in(rows[key], value_set=known.combine_chunks()))
                if not rows.num_rows:
                    return 0
            with self.folder.faults("write to", self.name):
                merge = table.merge_insert(key).when_not_matched_insert_all()
                return int(merge.execute(rows).num_inserted_rows)

    def update(self, rows: pa.Table) -> None:
        """Write these columns into the rows whose keys, in the first column, exist."""
        with self.folder.writing():
            table = self.handle()
            if table is not None:
                with self.folder.faults("write to", self.name):
                    table.merge_insert(rows.column_names[0]).when_matched_update_all().execute(rows)

    def add_column(self, field: pa.Field) -> None:
        """Add a column of nulls unless it exists."""
        with self.folder.writing():
            table = self.handle()
            if table is not None:
                with self.folder.faults("write to", self.name):
                    if field.name not in table.schema.names:
                        table.add_columns(pa.schema([field]))

    def delete(self, where: Any) -> int:
        """Delete the rows that pass `where` and return how many. Their bytes stay on disk for a while: see `erase`."""
        with self.folder.writing():
            table = self.handle()
            if table is None:
                return 0
            with self.folder.faults("delete from", self.name):
                return int(table.delete(where).num_deleted_rows)

    def compact(self) -> None:
        """Join small fragments, which a search opens one by one, and add new rows to the indexes."""
        with self.folder.writing():
            table = self.handle()
            if table is not None:
                with self.folder.faults("compact", self.name):
                    table.optimize(cleanup_older_than=_KEEP_OLD)

    # Indexes

    def small_fragments(self) -> int:
        """Return how many fragments `compact` would join."""
        table = self.handle()
        if table is None:
            return 0
        with self.folder.faults("read", self.name):
            return int(table.stats()["fragment_stats"]["num_small_fragments"])

    def index_of(self, column: str) -> tuple[str, int] | None:
        """Return the name of a column's index and how many rows it lacks; None if there is none."""
        table = self.handle()
        if table is None:
            return None
        with self.folder.faults("read", self.name):
            found = [index for index in table.list_indices() if index.columns == [column]]
            return (found[0].name, int(found[0].num_unindexed_rows)) if found else None

    def index_keys(self, column: str) -> None:
        """Build the index of a column of keys, again if there is one."""
        with self.folder.writing():
            table = self.handle()
            if table is not None:
                with self.folder.faults("index", self.name):
                    table.create_index(column, config=BTree(), replace=True)

    def index_vectors(self, as_: str, *, parts: int) -> None:
        """Build the index of the column `vector` for cosines, under the name `as_`, and those of the facts.

        Searches use the former index until the new one is complete.
        """
        with self.folder.writing():
            table = self.handle()
            if table is None:
                return
            with self.folder.faults("index", self.name):
                for column, kind in _FACT_INDEXES.items():  # first: with that of the vectors all are taken to exist
                    table.create_index(column, config=kind, replace=True)
                former = [index.name for index in table.list_indices() if index.columns == ["vector"]]
                # The parts' centres come from 64 rows each in 15 rounds: a million rows take 20 s then.
                parting = IvfSq(distance_type="cosine", num_partitions=parts, sample_rate=64, max_iterations=15)
                table.create_index("vector", config=parting, name=as_, replace=True)
                for index in former:
                    if index != as_:
                        table.drop_index(index)

    def drop_indexes(self, *, of: str | None = None) -> None:
        """Drop all indexes, or those of one column; that of the vectors first: without it `indexes.due` builds all."""
        table = self.existing()
        with self.folder.faults("erase from", self.name):
            for index in sorted(table.list_indices(), key=lambda index: index.columns != ["vector"]):
                if of is None or index.columns == [of]:
                    table.drop_index(index.name)
