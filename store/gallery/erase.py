"""Erase rows of a table from its files, which deleting alone does not do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery.table import Table
from store.store_errors import GalleryError

_KEYS_AT_ONCE = 1000  # in one statement
BYTES_AT_ONCE = 32 * 2**20  # of rows that are written again
_MOST_ROWS_AT_ONCE = 16_384


def erase(table: Table, keys: Sequence[str]) -> int:
    """Delete the rows of these keys (first column) so that no file of the table holds them; return how many.

    Deleting only marks rows, and compaction rewrites a fragment only when a tenth of it is marked. So:

    1. the other rows of each fragment are written again elsewhere, and the rows to erase stay alone in theirs;
    2. these are deleted, which empties their fragments;
    3. every index is dropped, for indexes hold vectors and keys, too;
    4. the files that the latest state does not use are deleted.

    Stopped anywhere, the next call completes it. Memory holds rows of `BYTES_AT_ONCE`, by the table's mean. Of other
    keys that exist more than once, which LanceDB could not move, one row stays. Raises GalleryError, also where
    another machine wrote in between so that some rows are left.
    """
    folder = table.folder
    with folder.writing():
        handle = table.handle()
        if handle is None:
            return 0
        key = table.columns()[0]
        table.drop_indexes(of=key)  # moving 50,000 pictures took 24 s with it and 4 s without
        rows = [row for chunk in _chunks(keys) for row in _row_ids(table, key, chunk)]
        repeats = repeated_rows(table, key, spare=keys)
        _delete(table, repeats)
        for fragment in sorted({row >> 32 for row in (*rows, *repeats)}):
            _move_out(table, key, fragment, spare=set(keys))
        _delete(table, rows)
        table.drop_indexes()
        with folder.faults("erase from", table.name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "optimize.cleanup_older_than=0")  # the writers' turn is ours
            # On an object store writers cannot be kept away: there, files of unfinished writes stay.
            handle.optimize(cleanup_older_than=timedelta(0), delete_unverified=folder.local)
        _delete_half_written(table)
        if any(_row_ids(table, key, chunk) for chunk in _chunks(keys)):
            raise GalleryError(
                f"Another program wrote to table {table.name!r} of the gallery at {folder.uri} while rows were erased "
                "from it, so some are left. Erase them again."
            )
        return len(rows)


def repeated_rows(table: Table, key: str, *, spare: Sequence[str]) -> list[int]:
    """Return the row ids of all but the first row of each key, the keys to `spare` left out."""
    found = table.query(lambda t: t.query().with_row_id().select([key]))
    counts = pc.value_counts(found[key])
    duplicates = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    duplicates = duplicates.filter(pc.invert(pc.is_in(duplicates, value_set=pa.array(spare, duplicates.type))))
    rows, first = [], set[str]()
    found = found.filter(pc.is_in(found[key], value_set=duplicates)).sort_by("_rowid")
    for row, value in zip(found["_rowid"].to_pylist(), found[key].to_pylist(), strict=True):
        if value in first:
            rows.append(row)
        first.add(value)
    return rows


def _delete(table: Table, rows: Sequence[int]) -> None:
    """Delete rows by row id and not by key: LanceDB keeps the text of the condition."""
    for start in range(0, len(rows), _KEYS_AT_ONCE):
        these = ", ".join(f"{row:d}" for row in rows[start : start + _KEYS_AT_ONCE])
        table.delete(f"_rowid IN ({these})")


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]


def _row_ids(table: Table, key: str, keys: Sequence[str]) -> list[int]:
    """Return the row ids of these keys, with the fragment's number in the upper 32 bits."""
    found = table.query(lambda t: t.query().where(col(key).isin(list(keys))).with_row_id().select([key]))
    return list(found["_rowid"].to_pylist())


def _move_out(table: Table, key: str, fragment: int, *, spare: set[str]) -> None:
    """Write the rows of a fragment again, which moves them to a new one, but not those of the keys to `spare`."""
    span = f"_rowid >= {fragment << 32:d} AND _rowid < {(fragment + 1) << 32:d}"
    keys = [value for value in table.read([key], span)[key].to_pylist() if value not in spare]
    at_once, columns = _rows_at_once(table), table.columns()
    for start in range(0, len(keys), at_once):
        rows = table.read(columns, col(key).isin(keys[start : start + at_once]))
        table.update(rows.cast(table.existing().schema))


def _rows_at_once(table: Table) -> int:
    """Return how many rows of the table's mean size make up `BYTES_AT_ONCE`."""
    return max(1, min(_MOST_ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(1.0, table.mean_bytes()))))


def _delete_half_written(table: Table) -> None:
    """Delete the unfinished files of killed writers, which LanceDB never does. In a writer's turn."""
    folder = table.folder
    if not folder.local:
        return
    with folder.faults("erase from", table.name):
        for file in Path(folder.uri, f"{table.name}.lance").rglob(".tmp*"):
            file.unlink(missing_ok=True)
