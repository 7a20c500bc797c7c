"""Erasing rows of a table so that none of its files holds them any more, which deleting alone does not do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery.lance_folder import LanceFolder
from store.store_errors import GalleryError

_KEYS_AT_ONCE = 1000  # in one statement
_BYTES_AT_ONCE = 32 * 2**20  # of rows that are written anew
_MOST_ROWS_AT_ONCE = 16_384


def erase(lance: LanceFolder, name: str, keys: Sequence[str]) -> int:
    """Deletes the rows of these keys (first column) so that no file of the table holds them; how many there were.

    Deleting only marks rows, and compaction rewrites a fragment only when a tenth of it is marked. So the other rows of
    each fragment are written anew first, which leaves these where they are; then these are deleted, which empties their
    fragments; then every index is dropped, for indexes hold vectors and keys, too; then the files that the latest state
    does not use are deleted, whatever left them. Stopped anywhere, the next call ends it. Rows of `_BYTES_AT_ONCE`, by
    the table's mean, are in memory. Of other keys that are there more than once, which LanceDB could not move, one row
    stays. Raises GalleryError, also where another machine wrote meanwhile so that some are still there.
    """
    with lance.writing():
        table = lance.table(name)
        if table is None:
            return 0
        key = table.schema.names[0]
        _drop_indexes(lance, name, of=key)  # moving 50,000 pictures took 24 s with it and 4 s without
        rows = [row for chunk in _chunks(keys) for row in _row_ids(lance, name, key, chunk)]
        repeats = _repeats(lance, name, key, spare=keys)
        with lance.faults("erase from", name):
            _delete(table, repeats)
        for fragment in sorted({row >> 32 for row in (*rows, *repeats)}):
            _move_out(lance, name, key, fragment, spare=set(keys))
        with lance.faults("erase from", name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "optimize.cleanup_older_than=0")  # the writers' turn is ours
            _delete(table, rows)
            _drop_indexes(lance, name)
            # On an object store writers cannot be kept away: there, files of writes under way stay.
            table.optimize(cleanup_older_than=timedelta(0), delete_unverified=lance.local)
        _delete_half_written(lance, name)
        if any(_row_ids(lance, name, key, chunk) for chunk in _chunks(keys)):
            raise GalleryError(
                f"Another program wrote to table {name!r} of the gallery at {lance.uri} while rows were erased from "
                "it, so some are still there. Erase them again."
            )
        return len(rows)


def _repeats(lance: LanceFolder, name: str, key: str, *, spare: Sequence[str]) -> list[int]:
    """Where the rows lie whose key a former row has, too; but for those of the keys to `spare`."""
    found = lance.query(name, lambda t: t.query().with_row_id().select([key]))
    counts = pc.value_counts(found[key])
    again = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    again = again.filter(pc.invert(pc.is_in(again, value_set=pa.array(spare, again.type))))
    rows, first = [], set[str]()
    found = found.filter(pc.is_in(found[key], value_set=again)).sort_by("_rowid")
    for row, value in zip(found["_rowid"].to_pylist(), found[key].to_pylist(), strict=True):
        if value in first:
            rows.append(row)
        first.add(value)
    return rows


def _delete(table: Any, rows: Sequence[int]) -> None:
    """By their places and not by key: LanceDB keeps the text of what it deletes."""
    for start in range(0, len(rows), _KEYS_AT_ONCE):
        these = ", ".join(f"{row:d}" for row in rows[start : start + _KEYS_AT_ONCE])
        table.delete(f"_rowid IN ({these})")


def _drop_indexes(lance: LanceFolder, name: str, *, of: str | None = None) -> None:
    """All of them, or those of one column; that of the vectors first, for without it `ranking.due` builds all anew."""
    table = lance.table(name)
    assert table is not None
    with lance.faults("erase from", name):
        for index in sorted(table.list_indices(), key=lambda index: index.columns != ["vector"]):
            if of is None or index.columns == [of]:
                table.drop_index(index.name)


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]


def _row_ids(lance: LanceFolder, name: str, key: str, keys: Sequence[str]) -> list[int]:
    """Where the rows of these keys lie: the fragment's number in the upper 32 bits."""
    found = lance.query(name, lambda t: t.query().where(col(key).isin(list(keys))).with_row_id().select([key]))
    return list(found["_rowid"].to_pylist())


def _move_out(lance: LanceFolder, name: str, key: str, fragment: int, *, spare: set[str]) -> None:
    """Writes the rows of a fragment anew, but not those of the keys to `spare`."""
    table = lance.table(name)
    assert table is not None
    span = f"_rowid >= {fragment << 32:d} AND _rowid < {(fragment + 1) << 32:d}"
    keys = [value for value in lance.read(name, [key], span)[key].to_pylist() if value not in spare]
    at_once = _rows_at_once(lance, name)
    for start in range(0, len(keys), at_once):
        chunk = col(key).isin(keys[start : start + at_once])
        moved = lance.read(name, table.schema.names, chunk).cast(table.schema)
        with lance.faults("erase from", name):
            table.merge_insert(key).when_matched_update_all().execute(moved)


def _rows_at_once(lance: LanceFolder, name: str) -> int:
    """Rows of the table's mean size that make up `_BYTES_AT_ONCE`."""
    table = lance.table(name)
    assert table is not None
    with lance.faults("read", name):
        stats = table.stats()
    size = int(stats["total_bytes"]) / max(1, int(stats["num_rows"]))
    return max(1, min(_MOST_ROWS_AT_ONCE, int(_BYTES_AT_ONCE / max(1.0, size))))


def _delete_half_written(lance: LanceFolder, name: str) -> None:
    """Deletes what killed writers left of files they had not finished; LanceDB never does. In a writer's turn."""
    if not lance.local:
        return
    with lance.faults("erase from", name):
        for file in Path(lance.uri, f"{name}.lance").rglob(".tmp*"):
            file.unlink(missing_ok=True)
